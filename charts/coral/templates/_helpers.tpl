{{- /* The image of all parts. */ -}}
{{- define "coral.image" -}}
{{- $image := .Values.image -}}
{{- $repository := required "image.repository must say where the image of Coral is: --set image.repository=registry.example/coral" $image.repository -}}
{{- if $image.registry }}{{ $repository = printf "%s/%s" $image.registry $repository }}{{ end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* The folder of the socket at this address. */ -}}
{{- define "coral.runtimeFolder" -}}
{{ trimPrefix "unix://" . | dir }}
{{- end -}}
