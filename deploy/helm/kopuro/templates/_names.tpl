{{- define "kopuro.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- define "kopuro.selector" -}}
app.kubernetes.io/name: kopuro
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "kopuro.labels" -}}
{{ include "kopuro.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
