{{/* How values become the environment of the processes. files/settings.yaml says which is which. */}}

{{/* Any value as the text of a variable. (Helm reads every number as a float, and prints a large one as 1e+06.) */}}
{{- define "goqueue.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "float64" . -}}
{{- toJson . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{- define "goqueue.postgresHost" -}}
{{- if .Values.postgresql.enabled -}}
{{ include "goqueue.fullname" . }}-postgresql.{{ .Release.Namespace }}.svc
{{- else -}}
{{ .Values.settings.postgres.host }}
{{- end -}}
{{- end -}}

{{/* (root, variable, text) The text of a variable, where the chart knows it better than the values do. */}}
{{- define "goqueue.ownText" -}}
{{- $fullname := include "goqueue.fullname" .root -}}
{{- if eq .variable "POSTGRES_HOST" -}}
{{- include "goqueue.postgresHost" .root -}}
{{- else if and (eq .variable "GOQUEUE_OPERATOR_LEASE_NAME") (not .text) -}}
{{- $fullname }}-operator
{{- else if and (eq .variable "GOQUEUE_OPERATOR_IMAGE") (not .text) -}}
{{- include "goqueue.image" (dict "image" .root.Values.image "version" .root.Chart.AppVersion) -}}
{{- else if and (eq .variable "GOQUEUE_OPERATOR_WORKER_CERTIFICATES") (not .text) -}}
{{- .root.Values.certificates.secretName -}}
{{- else if and (eq .variable "GOQUEUE_OPERATOR_WORKER_FS_GROUP") (eq .text "10001") -}}
{{- include "goqueue.fsGroup" .root | default "0" -}}
{{- else if eq .variable "GOQUEUE_OPERATOR_WORKER_LABELS" -}}
{{- $labels := list -}}
{{- range $key, $value := include "goqueue.releaseLabels" .root | fromYaml -}}
{{- $labels = append $labels (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- join "," (concat $labels .root.Values.settings.operator.workerLabels) -}}
{{- else if eq .variable "GOQUEUE_OPERATOR_WORKER_ENV_FROM" -}}
{{- $sources := list (printf "configmap/%s-worker-settings" $fullname) -}}
{{- if include "goqueue.hasSecrets" .root }}{{ $sources = append $sources (printf "secret/%s-process-secrets" $fullname) }}{{ end -}}
{{- if include "goqueue.secretsData" (dict "root" .root "of" "worker") -}}
{{- $sources = append $sources (printf "secret/%s-worker-secrets" $fullname) -}}
{{- end -}}
{{- join "," (concat $sources .root.Values.settings.operator.workerEnvFrom) -}}
{{- else if eq .variable "GOQUEUE_OPERATOR_WORKER_SERVICE_ACCOUNTS" -}}
{{- $own := include "goqueue.serviceAccountName" (dict "root" .root "component" "worker") -}}
{{- join "," (prepend .root.Values.settings.operator.workerServiceAccounts $own | uniq) -}}
{{- else -}}
{{- .text -}}
{{- end -}}
{{- end -}}

{{/* Says something where anything shall be traced. */}}
{{- define "goqueue.traces" -}}
{{- with .Values.settings.tracing }}{{ .exporterOtlpEndpoint }}{{ .exporterOtlpTracesEndpoint }}{{ .tracesExporter }}{{ end -}}
{{- end -}}

{{/* The port to which spans go. */}}
{{- define "goqueue.tracesPort" -}}
{{- $tracing := .Values.settings.tracing -}}
{{- $address := urlParse ($tracing.exporterOtlpTracesEndpoint | default $tracing.exporterOtlpEndpoint | default "http://") -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $address.host) -}}
{{- if $port -}}
{{- $port -}}
{{- else if eq $address.scheme "https" -}}
443
{{- else -}}
{{- ternary 4317 4318 (eq $tracing.exporterOtlpProtocol "grpc") -}}
{{- end -}}
{{- end -}}

{{/* The settings that are no secrets. Empty ones are left to the processes' own defaults. */}}
{{- define "goqueue.settingsData" -}}
{{- include "goqueue.partSettings" (dict "root" . "component" "") -}}
{{- end -}}

{{/* (root, component) Those of them that a part reads; without one, all. */}}
{{- define "goqueue.partSettings" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- range $group, $keys := $root.Files.Get "files/settings.yaml" | fromYaml -}}
{{- range $key, $entry := $keys -}}
{{- if and (not $entry.secretOf) (or (not $component) (not $entry.readBy) (has $component $entry.readBy)) -}}
{{- $text := include "goqueue.text" (index $root.Values.settings $group $key) -}}
{{- $text = include "goqueue.ownText" (dict "root" $root "variable" $entry.variable "text" $text) -}}
{{- if $text }}
{{ $entry.variable }}: {{ $text | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (root, text) Whether a text names a variable of the users' own, as `$(NAME)`. In a password that may be part of it. */}}
{{- define "goqueue.refers" -}}
{{- $own := .root.Values.extraEnv -}}
{{- range list "api" "scheduler" "operator" "worker" "migrations" "maintenance" -}}
{{- $own = concat $own (index $.root.Values .).extraEnv -}}
{{- end -}}
{{- range $own -}}
{{- if contains (printf "$(%s)" .name) $.text }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* (root, of) The secrets that stand in the values themselves: those of all processes, of workers or of the API only. */}}
{{- define "goqueue.secretsData" -}}
{{- $root := .root -}}
{{- $of := .of -}}
{{- range $group, $keys := $root.Files.Get "files/settings.yaml" | fromYaml -}}
{{- range $key, $entry := $keys -}}
{{- if eq (default "" $entry.secretOf) $of -}}
{{- $text := include "goqueue.text" (index $root.Values.settings $group $key) -}}
{{- if and $text (not (include "goqueue.refers" (dict "root" $root "text" $text))) }}
{{ $entry.variable }}: {{ $text | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What stands in the Secret of all processes beside the values' own: the passwords of the bundled stores. */}}
{{- define "goqueue.generates" -}}
{{- $postgres := .Values.settings.postgres -}}
{{- if and .Values.postgresql.enabled (not $postgres.password) (not $postgres.passwordFrom.secret) }}postgresql {{ end -}}
{{- if and .Values.valkey.enabled (not .Values.valkey.passwordFrom.secret) }}valkey{{ end -}}
{{- end -}}

{{- define "goqueue.hasSecrets" -}}
{{- include "goqueue.secretsData" (dict "root" . "of" "all") }}{{ include "goqueue.generates" . -}}
{{- end -}}

{{/* Whether the chart keeps the API's first key in a Secret of its own. */}}
{{- define "goqueue.ownsApiKey" -}}
{{- $api := .Values.settings.api -}}
{{- if and (not $api.bootstrapKeyFrom.secret) (or $api.bootstrapKey (ne $api.auth "off")) }}yes{{ end -}}
{{- end -}}

{{- define "goqueue.apiKeySecretKey" -}}
{{- with .Values.settings.api.bootstrapKeyFrom -}}
{{- if .secret -}}
{name: {{ .secret | quote }}, key: {{ .key | quote }}}
{{- else -}}
{name: {{ include "goqueue.fullname" $ }}-api-key, key: GOQUEUE_API_BOOTSTRAP_KEY}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The API's first key: the one given, else the one that the cluster has already, else a new one. */}}
{{- define "goqueue.apiKey" -}}
{{- $present := lookup "v1" "Secret" .Release.Namespace (printf "%s-api-key" (include "goqueue.fullname" .)) -}}
{{- if .Values.settings.api.bootstrapKey -}}
{{- .Values.settings.api.bootstrapKey -}}
{{- else if and $present (index ($present.data | default dict) "GOQUEUE_API_BOOTSTRAP_KEY") -}}
{{- index $present.data "GOQUEUE_API_BOOTSTRAP_KEY" | b64dec -}}
{{- else -}}
gq_{{ randAlphaNum 12 | lower }}_{{ randAlphaNum 43 }}
{{- end -}}
{{- end -}}

{{/* (root, component) Variables that come from single keys of Secrets, or refer to others. */}}
{{- define "goqueue.secretEnv" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- range $group, $keys := $root.Files.Get "files/settings.yaml" | fromYaml -}}
{{- range $key, $entry := $keys -}}
{{- if has (default "" $entry.secretOf) (list "all" $component) -}}
{{- $value := include "goqueue.text" (index $root.Values.settings $group $key) -}}
{{- $from := index $root.Values.settings $group (printf "%sFrom" $key) -}}
{{- if and (eq $component "migrations") (eq $entry.variable "POSTGRES_PASSWORD") $root.Values.migrations.owner.user -}}
{{- $from = $root.Values.migrations.owner.passwordFrom -}}
{{- end -}}
{{- if $from.secret }}
- name: {{ $entry.variable }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}}
{{- else if include "goqueue.refers" (dict "root" $root "text" $value) }}
- name: {{ $entry.variable }}
  value: {{ $value | quote }}
{{- else if and (eq $entry.variable "GOQUEUE_REDIS_URL") $root.Values.valkey.enabled $root.Values.valkey.passwordFrom.secret }}
- name: {{ $entry.variable }}
  value: {{ include "goqueue.valkeyURL" $root }}
{{- else if and (eq $entry.variable "GOQUEUE_REDIS_PASSWORD") $root.Values.valkey.enabled $root.Values.valkey.passwordFrom.secret }}
- name: {{ $entry.variable }}
  valueFrom: {secretKeyRef: {{ include "goqueue.valkeySecretKey" $root }}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Address of the bundled Valkey. Its password has a variable of its own: in a URL some characters mean something. */}}
{{- define "goqueue.valkeyURL" -}}
redis://{{ include "goqueue.fullname" . }}-valkey.{{ .Release.Namespace }}.svc:6379/0
{{- end -}}

{{- define "goqueue.valkeySecretKey" -}}
{{- with .Values.valkey.passwordFrom -}}
{{- if .secret -}}
{name: {{ .secret | quote }}, key: {{ .key | quote }}}
{{- else -}}
{name: {{ include "goqueue.fullname" $ }}-valkey, key: password}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
(root, component, own) `env` of a GoQueue container. The users' own come first: what follows may refer to them. Of several
with the same name the last one counts: the part's before that for all parts, and what the settings say before both.
*/}}
{{- define "goqueue.env" -}}
{{- $own := include "goqueue.ownEnv" . | fromYamlArray -}}
{{- include "goqueue.envByName" (dict "lists" (list .root.Values.extraEnv (index .root.Values .component).extraEnv $own)) -}}
{{- end -}}

{{/* (root, component, own) Those of the variables that the chart makes. */}}
{{- define "goqueue.ownEnv" -}}
{{- include "goqueue.secretEnv" . }}
{{- if and (eq .component "migrations") .root.Values.migrations.owner.user }}
- name: POSTGRES_USER
  value: {{ .root.Values.migrations.owner.user | quote }}
- name: GOQUEUE_MIGRATE_GRANT_TO
  value: {{ include "goqueue.text" .root.Values.settings.postgres.user | quote }}
{{- end }}
{{- with .own }}
{{- with .queues }}
- name: GOQUEUE_WORKER_QUEUES
  value: {{ include "goqueue.text" . | quote }}
{{- end }}
{{- with .concurrency }}
- name: GOQUEUE_WORKER_CONCURRENCY
  value: {{ include "goqueue.text" . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (root, component) `envFrom` of a GoQueue container. Later ones win. */}}
{{- define "goqueue.envFrom" -}}
{{- $fullname := include "goqueue.fullname" .root -}}
{{- /* Workers have one with their own settings alone: the operator replaces them when it changes. */ -}}
- configMapRef: {name: {{ $fullname }}{{ if eq .component "worker" }}-worker{{ end }}-settings}
{{- if include "goqueue.hasSecrets" .root }}
- secretRef: {name: {{ $fullname }}-process-secrets}
{{- end }}
{{- if and (eq .component "worker") (include "goqueue.secretsData" (dict "root" .root "of" "worker")) }}
- secretRef: {name: {{ $fullname }}-worker-secrets}
{{- end }}
{{- if and (eq .component "api") (include "goqueue.ownsApiKey" .root) }}
- secretRef: {name: {{ $fullname }}-api-key}
{{- end }}
{{- with concat .root.Values.extraEnvFrom (index .root.Values .component).extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
(root, component) Changes when a setting does that this part reads: its pods are replaced then, as they read settings only
at their start, and no other part's are. (What stands in `env` changes the pods by itself.)
*/}}
{{- define "goqueue.settingsChecksum" -}}
{{- $own := include "goqueue.secretsData" (dict "root" .root "of" .component) -}}
{{- $all := include "goqueue.secretsData" (dict "root" .root "of" "all") -}}
{{- list (include "goqueue.partSettings" .) $own $all .root.Values.valkey.password | toJson | sha256sum -}}
{{- end -}}

{{/* (root, name, given) A password: the one given, else the one that the cluster has already, else a new one. */}}
{{- define "goqueue.password" -}}
{{- if .given -}}
{{- .given -}}
{{- else -}}
{{- $present := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- if and $present (index ($present.data | default dict) "password") -}}
{{- index $present.data "password" | b64dec -}}
{{- else -}}
{{- randAlphaNum 32 -}}
{{- end -}}
{{- end -}}
{{- end -}}
