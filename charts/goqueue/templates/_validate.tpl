{{/* What values.schema.json cannot say: values that do not fit each other. One line each, naming what to change. */}}
{{- define "goqueue.validate" -}}
{{- $settings := .Values.settings -}}
{{- $fullname := include "goqueue.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $fullname) -}}
  {{- fail (printf "release name %s: no Service may be named %s-api (a small letter first, then letters, digits and -): set fullnameOverride" .Release.Name $fullname) -}}
{{- end -}}
{{- if dig "namespace" "" $settings.operator -}}
  {{- fail "settings.operator.namespace: the operator serves the release's namespace, where its rights are, or all of them with settings.operator.clusterWide=true: leave it out" -}}
{{- end -}}
{{- $own := list "goqueue.io/pool" "goqueue.io/worker-pool" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- $all := concat $own (list "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") -}}
{{- include "goqueue.validateLabels" (dict "path" "commonLabels" "labels" .Values.commonLabels "own" $all) -}}
{{- include "goqueue.validateLabels" (dict "path" "podLabels" "labels" .Values.podLabels "own" $own) -}}
{{- range list "api" "scheduler" "operator" "worker" "migrations" "maintenance" "postgresql" "valkey" -}}
  {{- include "goqueue.validateLabels" (dict "path" (printf "%s.podLabels" .) "labels" (index $.Values .).podLabels "own" $own) -}}
{{- end -}}
{{- if .Values.postgresql.enabled -}}
  {{- if $settings.postgres.host -}}
    {{- fail "settings.postgres.host names your PostgreSQL: set postgresql.enabled=false as well" -}}
  {{- end -}}
  {{- if eq .Values.migrations.mode "hook" -}}
    {{- fail "migrations.mode=hook runs before the bundled PostgreSQL is there: use mode job, or postgresql.enabled=false" -}}
  {{- end -}}
  {{- if .Values.migrations.owner.user -}}
    {{- fail "migrations.owner: the bundled PostgreSQL has one role; use postgresql.enabled=false" -}}
  {{- end -}}
{{- else if not $settings.postgres.host -}}
  {{- fail "postgresql.enabled=false: settings.postgres.host must name your PostgreSQL" -}}
{{- end -}}
{{- if and (hasPrefix "verify-" $settings.postgres.sslmode) (not $settings.postgres.sslrootcert) -}}
  {{- fail (printf "settings.postgres.sslmode=%s needs settings.postgres.sslrootcert (see certificates.secretName)" $settings.postgres.sslmode) -}}
{{- end -}}
{{- if .Values.valkey.enabled -}}
  {{- if or $settings.redis.url $settings.redis.urlFrom.secret $settings.redis.sentinelHosts -}}
    {{- fail "settings.redis names your Redis: set valkey.enabled=false as well" -}}
  {{- end -}}
  {{- if or $settings.redis.username $settings.redis.password $settings.redis.passwordFrom.secret -}}
    {{- fail "settings.redis has a login: the bundled Valkey's is valkey.password (or valkey.passwordFrom)" -}}
  {{- end -}}
  {{- if $settings.redis.cluster -}}
    {{- fail "settings.redis.cluster: the bundled Valkey is no cluster" -}}
  {{- end -}}
{{- else if not (or $settings.redis.url $settings.redis.urlFrom.secret $settings.redis.sentinelHosts) -}}
  {{- fail "valkey.enabled=false: settings.redis.url (or urlFrom.secret, or sentinelHosts) must name your Redis" -}}
{{- end -}}
{{- if and $settings.redis.cluster $settings.redis.sentinelHosts -}}
  {{- fail "settings.redis: cluster and sentinelHosts exclude each other" -}}
{{- end -}}
{{- range $group, $keys := .Files.Get "files/settings.yaml" | fromYaml -}}
  {{- range $key, $entry := $keys -}}
    {{- if $entry.secretOf -}}
      {{- if and (index $settings $group $key) (index $settings $group (printf "%sFrom" $key)).secret -}}
        {{- fail (printf "settings.%s: %s and %sFrom.secret exclude each other" $group $key $key) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.valkey.password .Values.valkey.passwordFrom.secret -}}
  {{- fail "valkey: password and passwordFrom.secret exclude each other" -}}
{{- end -}}
{{- if lt (float64 $settings.engine.leaseSeconds) (mulf 3 $settings.engine.heartbeatSeconds) -}}
  {{- fail "settings.engine.leaseSeconds must be at least 3 × heartbeatSeconds" -}}
{{- end -}}
{{- /* The job types of settings.engine.jobs have queues of their own, which only their modules know. */ -}}
{{- $queues := concat (list "default" "email" "webhooks" "payment") $settings.engine.queues -}}
{{- $check := not $settings.engine.jobs -}}
{{- range $settings.worker.queues -}}
  {{- if and $check (not (has (splitList ":" . | first) $queues)) -}}
    {{- fail (printf "settings.worker.queues: %s is neither a built-in queue nor one of settings.engine.queues" .) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $given := .Values.workerPools -}}
  {{- $pool := include "goqueue.poolValues" (dict "name" $name "given" ($given | default dict)) | fromYaml -}}
  {{- /* The spec of the pool may name the same again, and wins where there are such pools. */ -}}
  {{- if $.Values.operator.enabled -}}
    {{- include "goqueue.overlay" (dict "under" $pool "over" (pick $pool.spec "queues" "minReplicas" "maxReplicas")) -}}
  {{- end -}}
  {{- if gt (int $pool.minReplicas) (int $pool.maxReplicas) -}}
    {{- fail (printf "workerPools.%s: minReplicas is more than maxReplicas" $name) -}}
  {{- end -}}
  {{- range $pool.queues -}}
    {{- if and $check (not (has (splitList ":" . | first) $queues)) -}}
      {{- fail (printf "workerPools.%s.queues: %s is neither a built-in queue nor one of settings.engine.queues" $name .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if le (float64 .Values.api.terminationGracePeriodSeconds) (addf .Values.api.preStopSeconds $settings.api.requestTimeout) -}}
  {{- fail "api.terminationGracePeriodSeconds must be more than api.preStopSeconds + settings.api.requestTimeout" -}}
{{- end -}}
{{- with .Values.worker.terminationGracePeriodSeconds -}}
  {{- if le (float64 .) (float64 $settings.worker.graceSeconds) -}}
    {{- fail "worker.terminationGracePeriodSeconds must be more than settings.worker.graceSeconds" -}}
  {{- end -}}
{{- end -}}
{{- with .Values.api.autoscaling -}}
  {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
    {{- fail "api.autoscaling: minReplicas is more than maxReplicas" -}}
  {{- end -}}
{{- end -}}
{{- if and (not .Values.operator.enabled) (not .Values.maintenance.cleanup) (include "goqueue.operatorRuns" .) -}}
  {{- fail "operator.enabled=false leaves worker pools and finalizers that nobody looks after: set maintenance.cleanup=true for this upgrade" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
  {{- fail "ingress.enabled: ingress.hosts must name at least one host" -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
  {{- fail "podMonitor and serviceMonitor would both scrape the same pods: enable one of them" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
  {{- fail "httpRoute.enabled: httpRoute.parentRefs must name a Gateway" -}}
{{- end -}}
{{- range list "api" "scheduler" "operator" "worker" "migrations" "maintenance" -}}
  {{- with (index $.Values .).serviceAccount -}}
    {{- if and (not .create) (not .name) -}}
      {{- fail "serviceAccount.create=false needs serviceAccount.name" -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* (path, labels, own) Refuse labels that the chart sets itself: selectors, NetworkPolicies and Helm go by them. */}}
{{- define "goqueue.validateLabels" -}}
{{- range .own -}}
  {{- if hasKey ($.labels | default dict) . -}}
    {{- fail (printf "%s: the label %s is the chart's own" $.path .) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
