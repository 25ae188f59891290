{{/* The Deployment of the program `component`. */}}
{{- define "confab.deployment" -}}
{{- $name := include "confab.fullname" .root -}}
{{- $program := get (include "confab.programs" .root | fromYaml) .component -}}
{{- $values := get .root.Values .component -}}
{{- $pods := include "confab.podValues" . | fromYaml -}}
{{- $secrets := include "confab.secrets" . | fromYamlArray -}}
{{- $listen := .root.Values.listenAddress -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "confab.metadata" (dict "root" .root "component" .component "name" .component) | nindent 2 }}
  {{- with mergeOverwrite (deepCopy .root.Values.deploymentAnnotations) ($values.deploymentAnnotations | default dict) }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if not (include "confab.autoscaler" .) }}
  replicas: {{ int $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  # Longer than the longest start, in which a program waits for its schema.
  progressDeadlineSeconds: 900
  minReadySeconds: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{ include "confab.deploymentSelector" . | nindent 6 }}
  template:
    metadata:
      labels: {{ include "confab.podLabels" (dict "root" .root "component" .component "labels" $pods.labels) | nindent 8 }}
      # A changed setting restarts the pods that use it.
      annotations: {{ merge (dict "checksum/settings" (printf "%s%s" (include "confab.commonSettings" .root) (include "confab.settings" .) | sha256sum)) $pods.annotations | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "confab.serviceAccount" . }}
      terminationGracePeriodSeconds: {{ int $program.grace }}
      {{- include "confab.scheduling" (dict "pods" $pods) | nindent 6 }}
      topologySpreadConstraints: {{ if $pods.topologySpreadConstraints }}{{ toYaml $pods.topologySpreadConstraints | nindent 8 }}{{ else }}{{ include "confab.spread" .root | nindent 8 }}{{ end }}
      {{- with $pods.initContainers }}
      initContainers: {{ toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: confab
          image: {{ include "confab.image" (dict "root" .root "program" .component) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          securityContext: {{ toYaml $pods.containerSecurityContext | nindent 12 }}
          envFrom:
            - configMapRef: {name: {{ $name }}-common}
            - configMapRef: {name: {{ $name }}-{{ .component }}}
            {{- with $pods.extraEnvFrom }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            - {name: CONFAB_ADMIN_LISTEN, value: "{{ $listen }}:9464"}
            - {name: CONFAB_LISTEN, value: "{{ $listen }}:{{ $program.port }}"}
            {{- if eq .component "gateway" }}
            - {name: CONFAB_FORWARD_LISTEN, value: "{{ $listen }}:7250"}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: CONFAB_FORWARD_ADDRESS, value: "$(POD_IP)"}
            {{- else }}
            - {name: CONFAB_MIGRATE, value: "off"}
            {{- end }}
            - {name: CONFAB_ACCEPT_DRAIN, value: {{ $program.acceptDrain }}s}
            - {name: CONFAB_DRAIN, value: {{ $program.drain }}s}
            {{- range $secrets }}
            - {name: {{ .setting }}_FILE, value: /etc/confab/{{ .file }}}
            {{- end }}
            {{- with $pods.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: metrics, containerPort: 9464}
            - {name: {{ $program.portName }}, containerPort: {{ $program.port }}}
            {{- if eq .component "gateway" }}
            - {name: forward, containerPort: 7250}
            {{- end }}
          lifecycle:
            # Time for callers and load balancers to remove this pod.
            preStop: {sleep: {seconds: {{ $program.preStop }}}}
          {{- include "confab.probes" . | nindent 10 }}
          resources: {{ toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: secrets, mountPath: /etc/confab, readOnly: true}
            {{- with $pods.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with $pods.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "confab.secretsVolume" $secrets | nindent 8 }}
        {{- with $pods.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
