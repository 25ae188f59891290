{{/* The kind of what scales the program `component`; empty: nothing does. */}}
{{- define "confab.autoscaler" -}}
{{- $values := get .root.Values .component -}}
{{- if get ($values.scaledObject | default dict) "enabled" -}}
ScaledObject
{{- else if $values.autoscaling.enabled -}}
HorizontalPodAutoscaler
{{- end -}}
{{- end -}}

{{/* Fails when `range`, which is at `path` in the values, has its bounds the wrong way round. */}}
{{- define "confab.checkRange" -}}
{{- if gt (int .range.minReplicas) (int .range.maxReplicas) -}}
{{- fail (printf "%s: minReplicas, %d, is above maxReplicas, %d" .path (int .range.minReplicas) (int .range.maxReplicas)) -}}
{{- end -}}
{{- end -}}
