{{/*
(name, given) A worker pool of the values with what it leaves out. (`merge` would take a 0 for left out.) Helm hands a null on,
but for the pool that values.yaml has: there the key is missing.
*/}}
{{- define "goqueue.poolValues" -}}
{{- $pool := dict "queues" list "concurrency" nil "replicas" 2 "minReplicas" 1 "maxReplicas" 10 "resources" dict "spec" dict -}}
{{- if eq .name "default" }}{{ $_ := set $pool "replicas" nil }}{{ end -}}
{{- range $key, $value := .given }}{{ $_ := set $pool $key $value }}{{ end -}}
{{- toYaml $pool -}}
{{- end -}}

{{/* The worker pools as GoQueueWorkerPool resources, a JSON list. */}}
{{- define "goqueue.pools" -}}
{{- $pools := list -}}
{{- $root := . -}}
{{- range $name, $given := .Values.workerPools -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $pool := include "goqueue.poolValues" (dict "name" $name "given" $given) | fromYaml -}}
{{- $resource := include "goqueue.pool" (dict "root" $root "name" $name "pool" $pool) | fromYaml -}}
{{- include "goqueue.overlayPool" (dict "under" $resource.spec "over" $pool.spec) -}}
{{- $pools = append $pools $resource -}}
{{- end -}}
{{- end -}}
{{- toPrettyJson $pools -}}
{{- end -}}

{{/*
Label of the worker pools of a release. They are not in its manifest, so they do not carry
`app.kubernetes.io/instance`: Argo CD deletes what has it and is not rendered.
*/}}
{{- define "goqueue.releaseLabel" -}}
goqueue.io/release
{{- end -}}

{{- define "goqueue.poolLabels" -}}
{{- $labels := include "goqueue.labels" . | fromYaml -}}
{{- $_ := unset $labels "app.kubernetes.io/instance" -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" "goqueue-chart" -}}
{{- $_ := set $labels (include "goqueue.releaseLabel" .) .root.Release.Name -}}
{{- toYaml $labels -}}
{{- end -}}

{{- define "goqueue.pool" -}}
{{- $root := .root -}}
{{- $part := dict "root" .root "component" "worker" -}}
{{- $worker := .root.Values.worker -}}
{{- $full := printf "%s-%s" (include "goqueue.fullname" .root) .name -}}
{{- $queues := .pool.queues | default .root.Values.settings.worker.queues -}}
apiVersion: goqueue.io/v1alpha1
kind: GoQueueWorkerPool
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "goqueue.poolLabels" $part | nindent 4 }}
  annotations:
    # For Argo CD, should labels of its own mark the pool as the application's.
    argocd.argoproj.io/compare-options: IgnoreExtraneous
    argocd.argoproj.io/sync-options: Prune=false
    {{- /* The operator copies the others to the pool's Deployment. */}}
    {{- with omit (merge (dict) $worker.deploymentAnnotations $root.Values.deploymentAnnotations) "argocd.argoproj.io/compare-options" "argocd.argoproj.io/sync-options" }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  image: {{ include "goqueue.image" (dict "image" .root.Values.image "version" .root.Chart.AppVersion) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  {{- with $queues }}
  queues:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  concurrency: {{ .pool.concurrency | default .root.Values.settings.worker.concurrency }}
  minReplicas: {{ .pool.minReplicas }}
  maxReplicas: {{ .pool.maxReplicas }}
  resources:
    {{- toYaml (.pool.resources | default $worker.resources) | nindent 4 }}
  {{- with include "goqueue.env" $part | trim }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with concat $root.Values.extraEnvFrom $worker.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  podTemplate:
    metadata:
      {{- $annotations := dict "checksum/settings" (include "goqueue.settingsChecksum" $part) }}
      {{- include "goqueue.podMetadata" (merge (dict "values" $worker "annotations" $annotations) $part) | nindent 6 }}
    spec:
      serviceAccountName: {{ include "goqueue.serviceAccountName" $part }}
      terminationGracePeriodSeconds: {{ include "goqueue.workerGrace" .root }}
      securityContext:
        {{- include "goqueue.podSecurityContext" .root | nindent 8 }}
      {{- $selector := printf "goqueue.io/pool: %s" $full }}
      {{- include "goqueue.scheduling" (dict "root" .root "values" $worker "selector" $selector "spread" true) | nindent 6 }}
      {{- with include "goqueue.extraContainers" (merge (dict "key" "extraInitContainers") $part) }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: worker
          securityContext:
            {{- toYaml .root.Values.securityContext | nindent 12 }}
          volumeMounts:
            {{- include "goqueue.volumeMounts" $part | nindent 12 }}
        {{- with include "goqueue.extraContainers" (merge (dict "key" "extraContainers") $part) }}
        {{- . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "goqueue.volumes" $part | nindent 8 }}
{{- end -}}
