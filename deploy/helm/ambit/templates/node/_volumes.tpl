{{/* Shared with the pods that take a node out of the mesh on uninstallation (ConfigMap ambit-uninstall). */}}
{{- define "ambit.agentMounts" -}}
- {name: bpffs, mountPath: /sys/fs/bpf, mountPropagation: HostToContainer}
- {name: cgroups, mountPath: /sys/fs/cgroup, mountPropagation: HostToContainer, readOnly: true}
- {name: netns, mountPath: {{ .Values.node.paths.netns }}, mountPropagation: HostToContainer, readOnly: true}
{{- if ne (.Values.node.paths.netns | dir) "/var/run" }}
# Runtimes also name the same directory this way.
- {name: netns, mountPath: /var/run/netns, mountPropagation: HostToContainer, readOnly: true}
{{- end }}
- {name: run, mountPath: {{ .Values.node.paths.run }}}
# What the CNI plugin goes by while the agent is away. Not in `run`, which a reboot empties: the node's pods come up first.
- {name: state, mountPath: {{ .Values.node.paths.state }}/node, subPath: node}
# Here alone, since ztunnel talks to the controller only: the API server knows nothing of it.
- {name: api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "ambit.cniMounts" -}}
- {name: cni-conf, mountPath: {{ .Values.node.paths.cniConf }}}
- {name: cni-bin, mountPath: {{ .Values.node.paths.cniBin }}}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "ambit.cniArguments" -}}
- --conf-dir={{ .Values.node.paths.cniConf }}
- --bin-dir={{ .Values.node.paths.cniBin }}
- --socket={{ .Values.node.paths.run }}/cni.sock
- --enrolled-namespaces={{ .Values.node.paths.state }}/node/enrolled-namespaces
{{- end -}}

{{- define "ambit.nodeVolumes" -}}
- name: bpffs
  hostPath: {path: /sys/fs/bpf, type: Directory}
- name: cgroups
  hostPath: {path: /sys/fs/cgroup, type: Directory}
- name: netns
  hostPath: {path: {{ .Values.node.paths.netns }}, type: DirectoryOrCreate}
- name: run
  hostPath: {path: {{ .Values.node.paths.run }}, type: DirectoryOrCreate}
- name: state
  hostPath: {path: {{ .Values.node.paths.state }}, type: DirectoryOrCreate}
- name: cni-conf
  hostPath: {path: {{ .Values.node.paths.cniConf }}, type: DirectoryOrCreate}
- name: cni-bin
  hostPath: {path: {{ .Values.node.paths.cniBin }}, type: DirectoryOrCreate}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
- name: api
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}
