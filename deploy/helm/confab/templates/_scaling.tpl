{{/* The kind of the autoscaler of the program `component`; empty without one. */}}
{{- define "confab.autoscaler" -}}
{{- $values := get .root.Values .component -}}
{{- if get ($values.scaledObject | default dict) "enabled" -}}
ScaledObject
{{- else if $values.autoscaling.enabled -}}
HorizontalPodAutoscaler
{{- end -}}
{{- end -}}

{{/* Fails if minReplicas is above maxReplicas in `range`, which is at `path` in the values. */}}
{{- define "confab.checkRange" -}}
{{- if gt (int .range.minReplicas) (int .range.maxReplicas) -}}
{{- fail (printf "%s: minReplicas, %d, is above maxReplicas, %d" .path (int .range.minReplicas) (int .range.maxReplicas)) -}}
{{- end -}}
{{- end -}}
