# What .ci/run and .ci/matrix share: a copy of the project's own files, timed steps, and the test
# command of the README to the letter. To be sourced; sets clone, work and copy.

unset PYTHONPATH VIRTUAL_ENV
clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy="$work/sparity-edge"

# So that neither a .venv of yours nor a stale build nor a model in the clone gets in the way.
copy_own_files() {
    rm -rf "$copy"
    mkdir "$copy"
    python3 "$clone/docs/own_files.py" | tar -C "$clone" -T - -cf - | tar -C "$copy" -xf -
}

step() {
    local title=$1 start=$SECONDS status=0
    shift
    printf -- '--- %s\n' "$title"
    "$@" || status=$?
    printf -- '--- %s: %d s\n' "$title" "$((SECONDS - start))"
    return "$status"
}

readme_test_command() {
    local command
    command=$(sed -n '/<!-- tests: begin -->/,/<!-- tests: end -->/{/^```/d;/^<!--/d;/^$/d;p}' \
        "$clone/README.md")
    [ "$(grep -c . <<<"$command")" -eq 1 ] || { echo "README.md: no single test command" >&2; return 1; }
    printf '%s\n' "$command"
}

# The tests of the page want a Chromium, and are skipped where there is none.
install_browser() {
    command -v chromium >/dev/null && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "no chromium, and none can be installed: the page is not tried in a browser"
        return
    fi
    local install=(timeout 180 apt-get install -y -qq --no-install-recommends chromium)
    { "${install[@]}" || { timeout 60 apt-get update -qq && "${install[@]}"; }; } >/dev/null 2>&1 ||
        echo "chromium cannot be installed: the page is not tried in a browser"
}
