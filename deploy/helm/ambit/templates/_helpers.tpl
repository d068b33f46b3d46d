{{- define "ambit.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* ambit.image (list $ "node") */}}
{{- define "ambit.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- define "ambit.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "ambit.controlPlane" -}}
https://ambit-controller.{{ .Release.Namespace }}.svc:15012
{{- end -}}

{{/* The environment that tells every process of a node where things are. */}}
{{- define "ambit.nodeEnvironment" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: AMBIT_BPF_PINS
  value: {{ .Values.node.paths.pins | quote }}
- name: INPOD_UDS
  value: {{ .Values.node.paths.run }}/ztunnel.sock
- name: RUST_LOG
  value: {{ .Values.node.logLevel | quote }}
- name: LOG_FORMAT
  value: {{ .Values.node.logFormat }}
{{- end -}}

{{- define "ambit.agentEnvironment" -}}
{{ include "ambit.nodeEnvironment" . }}
- name: AMBIT_CGROUP
  value: {{ .Values.node.paths.cgroup | quote }}
- name: AMBIT_CNI_SOCKET
  value: {{ .Values.node.paths.run }}/cni.sock
- name: AMBIT_ENROLLED_NAMESPACES
  value: {{ .Values.node.paths.state }}/node/enrolled-namespaces
- name: AMBIT_EXCLUDED_NAMESPACES
  value: {{ append .Values.mesh.excludedNamespaces .Release.Namespace | uniq | join "," | quote }}
{{- end -}}

{{/* Root, because files, pins and namespaces of the host belong to it; with no capability but those named, and nothing to
write to but what is mounted. */}}
{{- define "ambit.securityContext" -}}
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end -}}
