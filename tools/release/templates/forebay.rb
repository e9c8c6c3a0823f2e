# Rendered by the release of {{.Version}}. It has the operator's commands on macOS, and serve on Linux.
class Forebay < Formula
  desc "Pull-through caching mirror for container registries"
  homepage "{{.URL}}"
  version "{{.Plain}}"
  license "Apache-2.0"
{{range .Systems}}
  on_{{.Brew}} do
{{- range .Programs}}
    on_{{.Brew}} do
      url "{{.URL}}"
      sha256 "{{.Sum}}"
    end
{{- end}}
  end
{{end}}
  def install
    bin.install "forebay"
    man1.install Dir["man/*.1"]
    man5.install Dir["man/*.5"]
    bash_completion.install "completions/forebay.bash" => "forebay"
    zsh_completion.install "completions/_forebay"
    fish_completion.install "completions/forebay.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/forebay version")
  end
end
