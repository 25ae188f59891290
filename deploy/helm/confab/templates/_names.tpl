{{/* The prefix of all object names. */}}
{{- define "confab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "confab" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-confab" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/*
Selects the pods of this release or, with `component`, of one program. Pods of other charts in the same release have another
app.kubernetes.io/name.
*/}}
{{- define "confab.selector" -}}
app.kubernetes.io/name: confab
{{ include "confab.deploymentSelector" . }}
{{- end -}}

{{/* A Deployment's selector cannot be changed, so it does not contain app.kubernetes.io/name. */}}
{{- define "confab.deploymentSelector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* The labels of all objects and pods. */}}
{{- define "confab.ownLabels" -}}
{{ include "confab.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: confab
{{- end -}}

{{/* The labels of pods, including the `labels` in their values. */}}
{{- define "confab.podLabels" -}}
{{- mergeOverwrite (include "confab.ownLabels" . | fromYaml) (.labels | default dict) | toYaml -}}
{{- end -}}

{{/* The labels of objects, including an object's own `labels`. */}}
{{- define "confab.labels" -}}
{{- $labels := include "confab.ownLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- mergeOverwrite $labels .root.Values.labels (.labels | default dict) | toYaml -}}
{{- end -}}

{{/* The metadata of the object `name`; adds the prefix to the name. */}}
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

{{/* The name of the Secret for an entry of `secrets`: its existingSecret, or `<name>-<suffix>`. */}}
{{- define "confab.secret" -}}
{{ .entry.existingSecret | default (printf "%s-%s" (include "confab.fullname" .root) .suffix) }}
{{- end -}}
