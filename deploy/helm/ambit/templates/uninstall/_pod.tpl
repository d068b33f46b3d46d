{{- define "ambit.uninstallPod" -}}
apiVersion: v1
kind: Pod
metadata:
  labels: {app: ambit-uninstall, istio.io/dataplane-mode: none}
spec:
  serviceAccountName: ambit-node
  automountServiceAccountToken: false
  {{- include "ambit.pullSecrets" . | nindent 2 }}
  restartPolicy: Never
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  hostNetwork: true
  hostPID: true
  dnsPolicy: ClusterFirstWithHostNet
  priorityClassName: {{ .Values.node.priorityClassName }}
  tolerations: [{operator: Exists}]
  volumes:
    {{- include "ambit.nodeVolumes" . | nindent 4 }}
{{- end -}}

{{- define "ambit.withdrawContainer" -}}
image: {{ include "ambit.image" (list $ "node") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
command: [python, -m, deploy.node, withdraw]
env:
  {{- include "ambit.agentEnvironment" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "ambit.securityContext" . | nindent 2 }}
  appArmorProfile: {type: Unconfined}
  capabilities: {drop: [ALL], add: [SYS_ADMIN, SYS_PTRACE]}
volumeMounts:
  {{- include "ambit.agentMounts" . | nindent 2 }}
{{- end -}}
