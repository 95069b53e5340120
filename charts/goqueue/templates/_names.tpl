{{/* Names and labels. */}}

{{- define "goqueue.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for what follows: a part, a pool, a checksum, a pod's own suffix. */}}
{{- define "goqueue.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "goqueue.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of this release. Never changes: selectors are immutable. */}}
{{- define "goqueue.releaseLabels" -}}
app.kubernetes.io/name: {{ include "goqueue.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* (root, component, pool) What selects the pods of one part, or of one pool of workers. */}}
{{- define "goqueue.selectorLabels" -}}
{{ include "goqueue.releaseLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
goqueue.io/worker-pool: {{ . }}
{{- end }}
{{- end -}}

{{/* (root, component) Labels of a resource. */}}
{{- define "goqueue.labels" -}}
{{ include "goqueue.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- if not (hasKey .root.Values.commonLabels "app.kubernetes.io/part-of") }}
app.kubernetes.io/part-of: goqueue
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (root, component) Annotations of a part's Deployment. */}}
{{- define "goqueue.deploymentAnnotations" -}}
{{- with merge (dict) (index .root.Values .component).deploymentAnnotations .root.Values.deploymentAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (root, component, name) Name, namespace and labels of a resource. */}}
{{- define "goqueue.metadata" -}}
name: {{ .name | default (printf "%s-%s" (include "goqueue.fullname" .root) .component) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "goqueue.labels" . | nindent 2 }}
{{- end -}}

{{/* (root, component) The ServiceAccount of a part. */}}
{{- define "goqueue.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- $account.name | default (printf "%s-%s" (include "goqueue.fullname" .root) .component) -}}
{{- end -}}

{{/* (image, version) A reference; a digest wins over the tag. */}}
{{- define "goqueue.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end -}}
{{- end -}}
