{{/* Selects the pods of one or several programs. */}}
{{- define "confab.podSelector" -}}
{{- if eq (len .components) 1 -}}
podSelector:
  matchLabels: {{ include "confab.selector" (dict "root" .root "component" (first .components)) | nindent 4 }}
{{- else -}}
podSelector:
  matchLabels: {{ include "confab.selector" (dict "root" .root) | nindent 4 }}
  matchExpressions: [{key: app.kubernetes.io/component, operator: In, values: {{ .components | toJson }}}]
{{- end -}}
{{- end -}}

{{/* The ports of a rule between pods; in some meshes, all traffic arrives at one mesh port. */}}
{{- define "confab.ports" -}}
ports:
  - port: {{ .port }}
  {{- with .root.Values.networkPolicy.meshPort }}
  - port: {{ int . }}
  {{- end }}
{{- end -}}

{{/* The policy of the program `component`: its callers, and the programs that it calls. */}}
{{- define "confab.programPolicy" -}}
{{- $programs := include "confab.programs" .root | fromYaml -}}
{{- $program := get $programs .component -}}
{{- $gateway := eq .component "gateway" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $callers := list -}}
{{- range list "gateway" "auth" "room" "message" "file" -}}
{{- if has $component (get $programs .).calls -}}
{{- $callers = append $callers . -}}
{{- end -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ include "confab.metadata" (dict "root" $root "name" $component) | nindent 2 }}
spec:
  {{- include "confab.podSelector" (dict "root" $root "components" (list $component)) | nindent 2 }}
  policyTypes: {{ if or $gateway $program.calls }}[Ingress, Egress]{{ else }}[Ingress]{{ end }}
  ingress:
    {{- if $gateway }}
    {{- with $root.Values.networkPolicy.clients }}
    - from: {{ toYaml . | nindent 8 }}
      {{- include "confab.ports" (dict "root" $root "port" "http") | nindent 6 }}
    {{- end }}
    - from:
        - {{ include "confab.podSelector" (dict "root" $root "components" (list "gateway")) | nindent 10 | trim }}
      {{- include "confab.ports" (dict "root" $root "port" "forward") | nindent 6 }}
    {{- else }}
    - from:
        - {{ include "confab.podSelector" (dict "root" $root "components" $callers) | nindent 10 | trim }}
      {{- include "confab.ports" (dict "root" $root "port" $program.port) | nindent 6 }}
    {{- end }}
  {{- if or $gateway $program.calls }}
  egress:
    {{- if $gateway }}
    - to:
        - {{ include "confab.podSelector" (dict "root" $root "components" (list "gateway")) | nindent 10 | trim }}
      {{- include "confab.ports" (dict "root" $root "port" 7250) | nindent 6 }}
    {{- end }}
    {{- range $program.calls }}
    - to:
        - {{ include "confab.podSelector" (dict "root" $root "components" (list .)) | nindent 10 | trim }}
      {{- include "confab.ports" (dict "root" $root "port" (get $programs .).port) | nindent 6 }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The policy `name`: pods of `components` may reach `target`. */}}
{{- define "confab.egressPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ include "confab.metadata" (dict "root" .root "name" .name) | nindent 2 }}
spec:
  {{- include "confab.podSelector" (dict "root" .root "components" .components) | nindent 2 }}
  policyTypes: [Egress]
  egress:
    - ports: [{port: {{ int .target.port }}}]
      {{- with .target.to }}
      to: {{ toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
