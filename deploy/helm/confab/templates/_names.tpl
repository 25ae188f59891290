{{/* What the names of all objects begin with. */}}
{{- define "confab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "confab" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-confab" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* What selects the pods of this release and, with `component`, of one program. */}}
{{- define "confab.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* The labels of pods. */}}
{{- define "confab.podLabels" -}}
{{ include "confab.selector" . }}
app.kubernetes.io/name: confab
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: confab
{{- end -}}

{{/* The labels of objects. */}}
{{- define "confab.labels" -}}
{{ include "confab.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of the object `name`, which is prefixed. */}}
{{- define "confab.metadata" -}}
name: {{ include "confab.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "confab.labels" . | nindent 2 }}
{{- end -}}

{{/* The ServiceAccount of the program `component`. */}}
{{- define "confab.serviceAccount" -}}
{{- $account := mergeOverwrite (deepCopy .root.Values.serviceAccount) (get (get .root.Values .component) "serviceAccount" | default dict) -}}
{{- if $account.name -}}
{{ $account.name }}
{{- else if $account.create -}}
{{ include "confab.fullname" .root }}-{{ .component }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* A Secret by its entry in `secrets`: the existing one that it names, or `<name>-<suffix>`. */}}
{{- define "confab.secret" -}}
{{ .entry.existingSecret | default (printf "%s-%s" (include "confab.fullname" .root) .suffix) }}
{{- end -}}
