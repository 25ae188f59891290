{{/* `pods`, overridden by the values of one program: maps are merged, other values are replaced. */}}
{{- define "confab.podValues" -}}
{{- $own := get (get .root.Values .component) "pods" | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.pods) (deepCopy $own) | toYaml -}}
{{- end -}}

{{- define "confab.image" -}}
{{- $image := .root.Values.image -}}
{{- $own := get .root.Values .program -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
confab-{{ .program }}
{{- with $own.digest -}}
@{{ . }}
{{- else -}}
:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The cluster-specific parts of a pod's spec; `pods` are the values. */}}
{{- define "confab.scheduling" -}}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "schedulerName" "hostAliases" "dnsPolicy" "dnsConfig" }}
{{- with get $.pods $key }}
{{ $key }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
automountServiceAccountToken: false
# Service variables, such as CONFAB_GATEWAY_PORT, would look like settings.
enableServiceLinks: false
securityContext: {{ toYaml .pods.securityContext | nindent 2 }}
{{- end -}}

{{/* Spreads the pods of one program and rollout over zones and nodes. */}}
{{- define "confab.spread" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{ include "confab.selector" (dict "root" $) | nindent 6 }}
  matchLabelKeys: [app.kubernetes.io/component, pod-template-hash]
{{- end }}
{{- end -}}

{{/* The three probes of a program. A program that waits for Postgres or the migrations is alive, but not ready. */}}
{{- define "confab.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}
