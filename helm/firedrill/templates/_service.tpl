{{- define "firedrill.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "firedrill.labels" -}}
app.kubernetes.io/name: firedrill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end -}}

{{/* How to reach NATS, as arguments: .root, .service. */}}
{{- define "firedrill.natsArgs" -}}
{{- $tls := .root.Values.nats.tls | default dict -}}
- --nats-url={{ .root.Values.nats.url }}
{{- if .root.Values.nats.nkeys }}
- --nkey-seed-file=/keys/{{ .service }}.nk
{{- end }}
{{- if $tls.secret }}
- --ca-file=/nats-tls/ca.crt
{{- if $tls.clientCert }}
- --client-cert-file=/nats-tls/tls.crt
- --client-key-file=/nats-tls/tls.key
{{- end }}
{{- else if $tls.clientCert }}
{{- fail "nats.tls.clientCert needs nats.tls.secret, which holds the certificate" }}
{{- end }}
{{- end -}}

{{/* The Secret with NATS's certificates, as a volume and as a mount. */}}
{{- define "firedrill.natsVolume" -}}
{{- with .root.Values.nats.tls }}{{ if .secret -}}
- name: nats-tls
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if .clientCert }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}{{ end }}
{{- end -}}
{{- define "firedrill.natsMount" -}}
{{- if (.root.Values.nats.tls | default dict).secret -}}
- {name: nats-tls, mountPath: /nats-tls, readOnly: true}
{{- end }}
{{- end -}}

{{/* A service's container: .root, .service, .args (further arguments) and .mounts. */}}
{{- define "firedrill.container" -}}
- name: {{ .service }}
  image: {{ include "firedrill.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [firedrill-{{ .service }}]
  args:
    {{- include "firedrill.natsArgs" . | nindent 4 }}
    # The pod's name is stable over restarts: a restarted instance goes on at once.
    - --instance=$(POD_NAME)
    - --signing-seed-file=/keys/{{ .service }}.nk
    - --keyring=/keys/keyring.json
    - --log-format=json
    {{- range .args }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    {{- with .root.Values.otlpEndpoint }}
    - name: OTEL_EXPORTER_OTLP_ENDPOINT
      value: {{ . | quote }}
    {{- end }}
  {{- if and .root.Values.targetSecret (has .service (list "injector" "observer" "validator")) }}
  envFrom:
    - secretRef: {name: {{ .root.Values.targetSecret }}}
  {{- end }}
  {{- if and (eq .service "mirror") .root.Values.mirror.storeSecret }}
  envFrom:
    - secretRef: {name: {{ .root.Values.mirror.storeSecret }}}
  {{- end }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  resources: {{- toYaml .root.Values.resources | nindent 4 }}
  volumeMounts:
    - {name: keys, mountPath: /keys, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- include "firedrill.natsMount" . | nindent 4 }}
    {{- range .mounts }}
    - {{ toJson . }}
    {{- end }}
{{- end -}}

{{/* The volumes of every service: its own key, the keyring, NATS's certificates, scratch
space. */}}
{{- define "firedrill.volumes" -}}
- name: keys
  secret:
    secretName: {{ .root.Values.keysSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .service }}.nk, path: {{ .service }}.nk}
      - {key: keyring.json, path: keyring.json}
- name: tmp
  emptyDir: {}
{{ include "firedrill.natsVolume" . }}
{{- end -}}
