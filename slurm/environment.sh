# Sourced by the scripts beside it: the checkout, the environment modules in MODULES, and $python of the one in VENV.

fail() {
    echo "error: $*" >&2
    exit 1
}

# zsh, cron and --export=NONE start jobs without the shell function `module`.
find_modules() {
    local file
    for file in /etc/profile.d/{lmod,modules}.sh; do
        [[ ! -r $file ]] || source "$file"
    done
}

load_modules() {
    set +u # these are other people's scripts
    type module &>/dev/null || find_modules
    local module
    for module in "$@"; do
        module load "$module" || fail "MODULES: $module cannot be loaded"
    done
    set -u
}

# shellcheck disable=SC2086 # a list of words
[[ -z ${MODULES:-} ]] || load_modules $MODULES
VENV=${VENV:-.venv}
python=$VENV/bin/python
[[ -x $python ]] || fail "VENV=$VENV has no bin/python: run 'make .venv/ready', or set VENV to another environment"
