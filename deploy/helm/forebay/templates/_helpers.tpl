{{- define "forebay.name" -}}
{{- if contains "forebay" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-forebay" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- define "forebay.selector" -}}
app.kubernetes.io/name: forebay
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "forebay.labels" -}}
{{ include "forebay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "forebay.monitoring" -}}
{{ merge (dict) (.Values.monitoring.labels | default dict) (include "forebay.labels" . | fromYaml) | toYaml }}
{{- end -}}

{{- define "forebay.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{- /* The configuration, with what the chart decides. */ -}}
{{- define "forebay.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" ":5000" -}}
{{- $_ := set $config "admin_listen" ":5001" -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $config "tls" (dict "cert_file" "/etc/forebay/tls/tls.crt" "key_file" "/etc/forebay/tls/tls.key") -}}
{{- end -}}
{{- if .Values.fleet.engine -}}
{{- if ne .Values.kind "StatefulSet" }}{{ fail "fleet is for a StatefulSet: the mirrors of a DaemonSet are each for their own node" }}{{ end -}}
{{- $fleet := dict "engine" .Values.fleet.engine "secret_file" "/etc/forebay/fleet/secret" "listen" ":5002" -}}
{{- if .Values.fleet.password -}}
{{- $_ := set $fleet "password_file" "/etc/forebay/fleet/password" -}}
{{- end -}}
{{- $_ := set $config "fleet" $fleet -}}
{{- end -}}
{{ toYaml $config }}
{{- end -}}

{{- define "forebay.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
image: {{ include "forebay.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}
