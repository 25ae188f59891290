{{/*
The fixed values of each program. They depend on each other: `grace` is the sum of `preStop`, `acceptDrain`, `drain` and 15 s.
*/}}
{{- define "confab.programs" -}}
gateway: {port: 8080, portName: http, preStop: 10, acceptDrain: 10, drain: 60, grace: 95, calls: [auth, room, message, file]}
auth: {port: 50051, portName: grpc, preStop: 10, acceptDrain: 5, drain: 30, grace: 60, calls: [room]}
room: {port: 50052, portName: grpc, preStop: 10, acceptDrain: 5, drain: 30, grace: 60, calls: [message, auth]}
message: {port: 50053, portName: grpc, preStop: 10, acceptDrain: 5, drain: 30, grace: 60, calls: [room, file, auth]}
file: {port: 50054, portName: grpc, preStop: 10, acceptDrain: 5, drain: 60, grace: 90, calls: [room, message, auth]}
{{- end -}}

{{/* The Secret of a program's certificate: the existing one, or <name>-<program>-tls. */}}
{{- define "confab.certificateSecret" -}}
{{ get .root.Values.tls.existingSecrets .component | default (printf "%s-%s-tls" (include "confab.fullname" .root) .component) }}
{{- end -}}

{{/* The mounted Secrets of the program `component`: setting, file, Secret, key. */}}
{{- define "confab.secrets" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $name := include "confab.fullname" .root -}}
{{- if ne .component "gateway" }}
- setting: CONFAB_{{ upper .component }}_STORE
  file: store
  secret: {{ include "confab.secret" (dict "root" .root "entry" (get $secrets (printf "%sStore" .component)) "suffix" (printf "%s-store" .component)) }}
  key: {{ get (get $secrets (printf "%sStore" .component)) "key" }}
{{- end }}
{{- if eq .component "auth" }}
- setting: CONFAB_SIGNING_KEY
  file: signing-key
  secret: {{ include "confab.secret" (dict "root" .root "entry" $secrets.signingKey "suffix" "signing-key") }}
  key: {{ $secrets.signingKey.key }}
{{- end }}
{{- if has .component (list "gateway" "auth" "message") }}
- setting: CONFAB_BUS
  file: bus
  secret: {{ include "confab.secret" (dict "root" .root "entry" $secrets.bus "suffix" "bus") }}
  key: {{ $secrets.bus.key }}
- setting: CONFAB_CLUSTER_KEY
  file: cluster-key
  secret: {{ include "confab.secret" (dict "root" .root "entry" $secrets.clusterKey "suffix" "cluster-key") }}
  key: {{ $secrets.clusterKey.key }}
{{- end }}
{{- if and (eq .component "file") $secrets.objects.enabled }}
{{- $objects := include "confab.secret" (dict "root" .root "entry" $secrets.objects "suffix" "objects") }}
- setting: CONFAB_S3_ACCESS_KEY_ID
  file: s3-access-key-id
  secret: {{ $objects }}
  key: {{ $secrets.objects.accessKeyIdKey }}
- setting: CONFAB_S3_SECRET_ACCESS_KEY
  file: s3-secret-access-key
  secret: {{ $objects }}
  key: {{ $secrets.objects.secretAccessKeyKey }}
{{- end }}
{{- $certificate := include "confab.certificateSecret" . }}
- {setting: CONFAB_TLS_CERT, file: tls.crt, secret: {{ $certificate }}, key: tls.crt}
- {setting: CONFAB_TLS_KEY, file: tls.key, secret: {{ $certificate }}, key: tls.key}
- {setting: CONFAB_TLS_CA, file: ca.crt, secret: {{ $certificate }}, key: ca.crt}
{{- end -}}

{{/* The projected volume for a list of such Secrets; keys of the same Secret are items of one source. */}}
{{- define "confab.secretsVolume" -}}
- name: secrets
  projected:
    # 0444: any user that the platform chooses can read the files; other pods cannot.
    defaultMode: 292
    sources:
      {{- $sources := list }}
      {{- range . }}
      {{- $sources = append $sources .secret }}
      {{- end }}
      {{- $all := . }}
      {{- range $secret := uniq $sources }}
      - secret:
          name: {{ $secret }}
          items:
            {{- range $all }}
            {{- if eq .secret $secret }}
            - {key: {{ .key }}, path: {{ .file }}}
            {{- end }}
            {{- end }}
      {{- end }}
{{- end -}}

{{/* The settings of the program `component`, as a ConfigMap's data. */}}
{{- define "confab.settings" -}}
{{- $name := include "confab.fullname" .root -}}
{{- $programs := include "confab.programs" .root | fromYaml -}}
{{- $settings := dict -}}
{{- range (get $programs .component).calls -}}
{{- $_ := set $settings (printf "CONFAB_%s_URL" (upper .)) (printf "%s://%s-%s:%v" $.root.Values.tls.urlScheme $name . (int (get $programs .).port)) -}}
{{- end -}}
{{- if eq .component "gateway" -}}
{{- $_ := set $settings "CONFAB_GATEWAY_URL" (printf "http://%s-gateway-peers:7250" $name) -}}
{{- end -}}
{{- range $setting, $value := mergeOverwrite $settings (get .root.Values .component).settings }}
{{- if ne (toString $value) "" }}
{{ $setting }}: {{ toString $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The common settings of all programs, as a ConfigMap's data. */}}
{{- define "confab.commonSettings" -}}
{{- range $setting, $value := .Values.settings }}
{{ $setting }}: {{ toString $value | quote }}
{{- end }}
{{- with .Values.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end -}}
