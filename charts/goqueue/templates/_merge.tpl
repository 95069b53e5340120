{{/* How the values of a part are merged with those for all parts, and with what the chart itself sets. */}}

{{/*
(key, lists) The lists as one. Of items with the same key the last one stays, in the place of the first. Server-side apply
refuses the same key twice.
*/}}
{{- define "goqueue.byKey" -}}
{{- $key := .key -}}
{{- $order := list -}}
{{- $found := dict -}}
{{- range .lists -}}
{{- range . -}}
{{- $value := get . $key | toString -}}
{{- if not (hasKey $found $value) }}{{ $order = append $order $value }}{{ end -}}
{{- $_ := set $found $value . -}}
{{- end -}}
{{- end -}}
{{- $merged := list -}}
{{- range $order }}{{ $merged = append $merged (get $found .) }}{{ end -}}
{{- with $merged }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* (lists) `env` as one list, by name. Kubernetes takes only strings, so numbers and booleans become text. */}}
{{- define "goqueue.envByName" -}}
{{- $lists := list -}}
{{- range .lists -}}
{{- $texts := list -}}
{{- range . -}}
{{- $variable := deepCopy . -}}
{{- if hasKey $variable "value" }}{{ $_ := set $variable "value" (include "goqueue.text" $variable.value) }}{{ end -}}
{{- $texts = append $texts $variable -}}
{{- end -}}
{{- $lists = append $lists $texts -}}
{{- end -}}
{{- include "goqueue.byKey" (dict "key" "name" "lists" $lists) -}}
{{- end -}}

{{/*
(under, over) Writes the fields of `over` into `under`, maps field by field, lists as a whole. (`mergeOverwrite` would take
0 and false for left out.)
*/}}
{{- define "goqueue.overlay" -}}
{{- $under := .under -}}
{{- range $field, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $under $field)) -}}
{{- include "goqueue.overlay" (dict "under" (get $under $field) "over" $value) -}}
{{- else -}}
{{- $_ := set $under $field $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
(under, over) Like overlay, for two containers: variables, mounts and ports of both stay, by their keys, and `envFrom` of
both, in this order.
*/}}
{{- define "goqueue.overlayContainer" -}}
{{- $under := .under -}}
{{- $over := deepCopy .over -}}
{{- if $over.env -}}
{{- $_ := set $over "env" (include "goqueue.envByName" (dict "lists" (list ($under.env | default list) $over.env)) | fromYamlArray) -}}
{{- end -}}
{{- range $field, $key := dict "volumeMounts" "mountPath" "ports" "name" -}}
{{- with get $over $field -}}
{{- $both := list (get $under $field | default list) . -}}
{{- $_ := set $over $field (include "goqueue.byKey" (dict "key" $key "lists" $both) | fromYamlArray) -}}
{{- end -}}
{{- end -}}
{{- with $over.envFrom }}{{ $_ := set $over "envFrom" (concat ($under.envFrom | default list) .) }}{{ end -}}
{{- include "goqueue.overlay" (dict "under" $under "over" $over) -}}
{{- end -}}

{{/*
(under, over) Like overlay, for the specs of two worker pools: what the chart sets stays, and fields that the values name
are added or replaced.
*/}}
{{- define "goqueue.overlayPool" -}}
{{- $under := .under -}}
{{- $over := deepCopy .over -}}
{{- $pod := dig "podTemplate" "spec" dict $over -}}
{{- $underPod := $under.podTemplate.spec -}}
{{- range $field := list "containers" "initContainers" -}}
{{- if get $pod $field -}}
{{- $containers := list -}}
{{- $found := dict -}}
{{- range concat (get $underPod $field | default list) (get $pod $field) -}}
{{- if hasKey $found .name -}}
{{- include "goqueue.overlayContainer" (dict "under" (get $found .name) "over" .) -}}
{{- else -}}
{{- $_ := set $found .name . -}}
{{- $containers = append $containers . -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pod $field $containers -}}
{{- end -}}
{{- end -}}
{{- range $field := list "volumes" "imagePullSecrets" -}}
{{- with get $pod $field -}}
{{- $both := list (get $underPod $field | default list) . -}}
{{- $_ := set $pod $field (include "goqueue.byKey" (dict "key" "name" "lists" $both) | fromYamlArray) -}}
{{- end -}}
{{- end -}}
{{- with $pod.tolerations }}{{ $_ := set $pod "tolerations" (concat ($underPod.tolerations | default list) . | uniq) }}{{ end -}}
{{- /* `env` and `envFrom` of a pool have the form of a container's. */ -}}
{{- include "goqueue.overlayContainer" (dict "under" $under "over" $over) -}}
{{- end -}}
