# Rendered by the release of {{.Version}}: nix-build -E 'with import <nixpkgs> {}; callPackage ./forebay.nix {}'
{ lib, stdenvNoCC, fetchurl, installShellFiles }:
let
  programs = {
{{- range .Systems}}{{range .Programs}}{{if .Nix}}
    {{.Nix}} = { url = "{{.URL}}"; sha256 = "{{.Sum}}"; };
{{- end}}{{end}}{{end}}
  };
  system = stdenvNoCC.hostPlatform.system;
in
stdenvNoCC.mkDerivation {
  pname = "forebay";
  version = "{{.Plain}}";
  src = fetchurl (programs.${system} or (throw "no forebay for ${system}"));
  nativeBuildInputs = [ installShellFiles ];
  installPhase = ''
    install -Dm755 forebay $out/bin/forebay
    installManPage man/*
    installShellCompletion --cmd forebay --bash completions/forebay.bash --zsh completions/_forebay --fish completions/forebay.fish
  '';
  meta = {
    description = "Pull-through caching mirror for container registries";
    license = lib.licenses.asl20;
    platforms = builtins.attrNames programs;
    mainProgram = "forebay";
  };
}
