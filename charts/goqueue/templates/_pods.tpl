{{/* What all pods have in common. */}}

{{/*
(root, values, selector, spread) Where the pods run: a part's own wishes beside or instead of those for all pods.
`selector` are the labels by which its pods are counted, `spread` says that there are several of them.
*/}}
{{- define "goqueue.scheduling" -}}
{{- $all := .root.Values -}}
{{- $own := .values -}}
{{- /* With links, the Service goqueue-api would set GOQUEUE_API_PORT to tcp://… in every pod. */ -}}
enableServiceLinks: false
{{- with include "goqueue.byKey" (dict "key" "name" "lists" (list $all.imagePullSecrets)) }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName | default $all.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with merge (dict) $own.nodeSelector $all.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $all.tolerations $own.tolerations | uniq }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity | default $all.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $given := $own.topologySpreadConstraints | default $all.topologySpreadConstraints }}
{{- if and (not $given) .spread }}
{{- $given = list (dict "topologyKey" "kubernetes.io/hostname" "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway") }}
{{- end }}
{{- with $given }}
topologySpreadConstraints:
  {{- range . }}
  {{- /* Kubernetes counts no pod at all where a constraint has no selector. */}}
  {{- $filled := dict "labelSelector" (dict "matchLabels" ($.selector | fromYaml)) }}
  {{- if $.spread }}
  {{- /* Without it a rolling update counts the pods that are about to end, and leaves the new ones uneven. */}}
  {{- $_ := set $filled "matchLabelKeys" (list "pod-template-hash") }}
  {{- end }}
  {{- list (hasKey . "labelSelector" | ternary . (merge $filled (omit . "labelSelector"))) | toYaml | nindent 2 }}
  {{- end }}
{{- end }}
{{- $hostUsers := ternary $all.hostUsers $own.hostUsers (kindIs "invalid" $own.hostUsers) }}
{{- if not (kindIs "invalid" $hostUsers) }}
hostUsers: {{ $hostUsers }}
{{- end }}
{{- end -}}

{{/*
(root, values, component, annotations, volumes) Labels and annotations of a pod. `volumes` are the emptyDirs, `tmp` where
none are named, with which the Cluster Autoscaler may remove the pod: without the annotation they would pin its node.
*/}}
{{- define "goqueue.podMetadata" -}}
{{- $annotations := dict "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes" (.volumes | default "tmp") -}}
{{- range list .root.Values.podAnnotations .values.podAnnotations (.annotations | default dict) -}}
{{- /* Not `merge`, for which an empty text is none. */ -}}
{{- range $key, $value := . }}{{ $_ := set $annotations $key $value }}{{ end -}}
{{- end -}}
labels:
  {{- include "goqueue.selectorLabels" . | nindent 2 }}
  {{- with merge (dict) .values.podLabels .root.Values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- toYaml $annotations | nindent 2 }}
{{- end -}}

{{/* Group that reads the mounted certificates; empty where none are, and on OpenShift, which chooses one itself. */}}
{{- define "goqueue.fsGroup" -}}
{{- with .Values.podSecurityContext.fsGroup -}}
{{- include "goqueue.text" . -}}
{{- else -}}
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}10001{{ end -}}
{{- end -}}
{{- end -}}

{{- define "goqueue.podSecurityContext" -}}
{{- $context := .Values.podSecurityContext -}}
{{- $group := include "goqueue.fsGroup" . -}}
{{- if and .Values.certificates.secretName $group -}}
{{- $context = mergeOverwrite (deepCopy $context) (dict "fsGroup" (int64 $group)) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* (root, component) What every GoQueue container mounts. */}}
{{- define "goqueue.volumeMounts" -}}
{{- $own := include "goqueue.ownVolumeMounts" . | fromYamlArray -}}
{{- $lists := list $own .root.Values.extraVolumeMounts (index .root.Values .component).extraVolumeMounts -}}
{{- include "goqueue.byKey" (dict "key" "mountPath" "lists" $lists) -}}
{{- end -}}

{{- define "goqueue.ownVolumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .root.Values.certificates.secretName }}
- name: certificates
  mountPath: /etc/goqueue/certificates
  readOnly: true
{{- end }}
{{- end -}}

{{/* (root, component) */}}
{{- define "goqueue.volumes" -}}
{{- $own := include "goqueue.ownVolumes" . | fromYamlArray -}}
{{- $lists := list $own .root.Values.extraVolumes (index .root.Values .component).extraVolumes -}}
{{- include "goqueue.byKey" (dict "key" "name" "lists" $lists) -}}
{{- end -}}

{{- define "goqueue.ownVolumes" -}}
- name: tmp
  emptyDir: {}
{{- with .root.Values.certificates.secretName }}
- name: certificates
  secret:
    secretName: {{ . }}
    # libpq takes no key that others may read; the pod's fsGroup may.
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* (root, component, own) Image, environment and mounts of a container that runs `goqueue …`; `own` is a worker pool. */}}
{{- define "goqueue.container" -}}
{{- $resources := (index .root.Values .component).resources -}}
{{- with .own }}{{ $resources = .resources | default $resources }}{{ end -}}
image: {{ include "goqueue.image" (dict "image" .root.Values.image "version" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
envFrom:
  {{- include "goqueue.envFrom" . | nindent 2 }}
{{- with include "goqueue.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $resources | nindent 2 }}
volumeMounts:
  {{- include "goqueue.volumeMounts" . | nindent 2 }}
{{- end -}}

{{/*
(root, component, key) The users' own containers, or init containers, of a part, a YAML list. Those that say nothing of
their security get that of GoQueue's, or a namespace that enforces `restricted` would refuse the pod.
*/}}
{{- define "goqueue.extraContainers" -}}
{{- $root := .root -}}
{{- $own := index (index .root.Values .component) .key -}}
{{- range include "goqueue.byKey" (dict "key" "name" "lists" (list (index .root.Values .key) ($own | default list))) | fromYamlArray }}
{{- $security := hasKey . "securityContext" | ternary .securityContext $root.Values.securityContext }}
{{ list (set (deepCopy .) "securityContext" $security) | toYaml }}
{{- end -}}
{{- end -}}

{{/*
(root, component, pool, own, grace, main, token) Pod template of a long-running process. `main` are the lines of its container
that are its own: args, ports, probes. It waits for the schema: the migrations run beside it.
*/}}
{{- define "goqueue.podTemplate" -}}
{{- $values := index .root.Values .component -}}
{{- $annotations := dict "checksum/settings" (include "goqueue.settingsChecksum" .) -}}
metadata:
  {{- include "goqueue.podMetadata" (merge (dict "values" $values "annotations" $annotations) .) | nindent 2 }}
spec:
  serviceAccountName: {{ include "goqueue.serviceAccountName" . }}
  automountServiceAccountToken: {{ .token | default false }}
  {{- $selector := include "goqueue.selectorLabels" . }}
  {{- include "goqueue.scheduling" (dict "root" .root "values" $values "selector" $selector "spread" true) | nindent 2 }}
  securityContext:
    {{- include "goqueue.podSecurityContext" .root | nindent 4 }}
  terminationGracePeriodSeconds: {{ .grace }}
  initContainers:
    {{- with include "goqueue.extraContainers" (dict "root" .root "component" .component "key" "extraInitContainers") }}
    {{- . | nindent 4 }}
    {{- end }}
    - name: wait-for-schema
      # In the background, so that the shell hears SIGTERM at once.
      command: [sh, -c, "trap 'exit 1' TERM; until goqueue migrate --check & wait $!; do sleep 1; done"]
      {{- include "goqueue.container" . | nindent 6 }}
  containers:
    - name: {{ .component }}
      {{- .main | nindent 6 }}
      {{- include "goqueue.container" . | nindent 6 }}
    {{- with include "goqueue.extraContainers" (dict "root" .root "component" .component "key" "extraContainers") }}
    {{- . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "goqueue.volumes" . | nindent 4 }}
{{- end -}}

{{/* (port) Probes of a process. It gets two minutes to start: it tries for long to reach its stores. */}}
{{- define "goqueue.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/*
(root, name, least) `replicas` of a Deployment that something else scales, as the cluster has them now; empty where it should
be left out.

Helm must not take away a number that it has set before: Kubernetes would put 1 in its place, and the scaler begins from
there. By server-side apply (a Helm of field manager "helm", operation Apply) it may let go of the number once the scaler has
changed it, and has to by then, as another number of another owner is a conflict. By three-way merge the number is taken away
whenever it leaves the manifest, so it stays in there. Without a cluster (`helm template`, Argo CD) and for a Deployment that
does not exist yet it is left out.
*/}}
{{- define "goqueue.scaledReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace .name -}}
{{- if $live -}}
{{- $applies := false -}}
{{- $owns := false -}}
{{- range $live.metadata.managedFields -}}
{{- if and (eq .manager "helm") (eq .operation "Apply") -}}
{{- $applies = true -}}
{{- if hasKey (dig "f:spec" dict .fieldsV1) "f:replicas" }}{{ $owns = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $replicas := dig "spec" "replicas" 1 $live -}}
{{- /* An autoscaler leaves 0 alone. */ -}}
{{- if or $owns (not $applies) (and (not $replicas) .least) }}{{ max .least $replicas }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* (root, component) Where the values say nothing else, no pod goes before the one that replaces it is ready. */}}
{{- define "goqueue.strategy" -}}
strategy:
{{- with (index .root.Values .component).strategy }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- end }}
{{- end -}}

{{/*
(root, component, script, env, secretEnv, pools) Pod spec of a Job or test that runs one of files/scripts with a token for
the Kubernetes API. `pools` is the name of a ConfigMap with worker pools.
*/}}
{{- define "goqueue.scriptPodSpec" -}}
{{- $values := .root.Values.maintenance -}}
serviceAccountName: {{ .serviceAccountName }}
automountServiceAccountToken: true
{{- $selector := include "goqueue.selectorLabels" (dict "root" .root "component" (.component | default "maintenance")) }}
{{- include "goqueue.scheduling" (dict "root" .root "values" $values "selector" $selector) | nindent 0 }}
securityContext:
  {{- include "goqueue.podSecurityContext" .root | nindent 2 }}
restartPolicy: {{ .restartPolicy }}
terminationGracePeriodSeconds: 5
{{- with include "goqueue.extraContainers" (dict "root" .root "component" "maintenance" "key" "extraInitContainers") }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - name: {{ trimSuffix ".py" .script }}
    image: {{ include "goqueue.image" (dict "image" .root.Values.image "version" .root.Chart.AppVersion) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [python3, /etc/goqueue/scripts/{{ .script }}]
    securityContext:
      {{- toYaml .root.Values.securityContext | nindent 6 }}
    env:
      {{- $own := list }}
      {{- range $name, $value := .env }}{{ $own = append $own (dict "name" $name "value" $value) }}{{ end }}
      {{- range $name, $key := .secretEnv }}
      {{- $own = append $own (dict "name" $name "valueFrom" (dict "secretKeyRef" (fromYaml $key))) }}
      {{- end }}
      {{- include "goqueue.envByName" (dict "lists" (list .root.Values.extraEnv $values.extraEnv $own)) | nindent 6 }}
    {{- with concat .root.Values.extraEnvFrom $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    {{- $part := dict "root" .root "component" "maintenance" }}
    {{- $name := printf "%s-scripts" (include "goqueue.fullname" .root) }}
    {{- $volumes := list (dict "name" "scripts" "configMap" (dict "name" $name)) }}
    {{- $mounts := list (dict "name" "scripts" "mountPath" "/etc/goqueue/scripts" "readOnly" true) }}
    {{- with .pools }}
    {{- $volumes = append $volumes (dict "name" "pools" "configMap" (dict "name" .)) }}
    {{- $mounts = append $mounts (dict "name" "pools" "mountPath" "/etc/goqueue/pools" "readOnly" true) }}
    {{- end }}
    volumeMounts:
      {{- $all := include "goqueue.volumeMounts" $part | fromYamlArray }}
      {{- include "goqueue.byKey" (dict "key" "mountPath" "lists" (list $all $mounts)) | nindent 6 }}
volumes:
  {{- $all = include "goqueue.volumes" $part | fromYamlArray }}
  {{- include "goqueue.byKey" (dict "key" "name" "lists" (list $all $volumes)) | nindent 2 }}
{{- end -}}

{{/*
How long a Job is tried on which all else waits: for ever. A Job that has failed never runs again, even when its cause is
gone, and upgrades with the same values do not make a new one. The kubelet starts its container again at least every five
minutes.
*/}}
{{- define "goqueue.neverGivesUp" -}}
backoffLimit: 2147483647
{{- end -}}

{{- define "goqueue.scriptsChecksum" -}}
{{- range $path, $_ := .Files.Glob "files/scripts/*.py" }}{{ $.Files.Get $path }}{{ end -}}
{{- end -}}

{{/* (root, component, name, selector) `selector` are the labels of its pods, where they are not the part's. */}}
{{- define "goqueue.podDisruptionBudget" -}}
{{- $budget := (index .root.Values .component).podDisruptionBudget -}}
{{- if $budget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "goqueue.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ $budget.maxUnavailable }}
  # A pod that is not ready anyway must not stop a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- .selector | default (include "goqueue.selectorLabels" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* Bytes of a Kubernetes quantity such as 512Mi; empty where there is none, or none that this understands. */ -}}
{{- define "goqueue.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := include "goqueue.text" . -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if and $number (hasKey $units $unit) -}}
{{- int64 (mulf (float64 $number) (float64 (get $units $unit))) -}}
{{- end -}}
{{- end -}}
