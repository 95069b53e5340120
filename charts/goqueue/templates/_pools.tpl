{{/* (a worker pool of the values) The same with what it leaves out. (`merge` would take a 0 for left out.) */}}
{{- define "goqueue.poolValues" -}}
{{- $pool := dict "queues" list "concurrency" nil "replicas" 2 "minReplicas" 1 "maxReplicas" 10 "resources" dict "spec" dict -}}
{{- range $key, $value := . }}{{ $_ := set $pool $key $value }}{{ end -}}
{{- toYaml $pool -}}
{{- end -}}

{{/* The worker pools as GoQueueWorkerPool resources, a JSON list. */}}
{{- define "goqueue.pools" -}}
{{- $pools := list -}}
{{- $root := . -}}
{{- range $name, $given := .Values.workerPools -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $pool := include "goqueue.poolValues" $given | fromYaml -}}
{{- $resource := include "goqueue.pool" (dict "root" $root "name" $name "pool" $pool) | fromYaml -}}
{{- $_ := set $resource "spec" (mergeOverwrite $resource.spec $pool.spec) -}}
{{- $pools = append $pools $resource -}}
{{- end -}}
{{- end -}}
{{- toPrettyJson $pools -}}
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
  {{- include "goqueue.metadata" (merge (dict "name" $full) $part) | nindent 2 }}
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
