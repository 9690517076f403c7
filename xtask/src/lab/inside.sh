# Runs as root in the lab guest at each boot, from the second disk. One line per check: `LAB ok NAME SECONDS` or `LAB FAILED NAME: last words`.
check() {
    local name=$1 start out
    shift
    start=$(date +%s.%N)
    if out=$(set -e; "$@" 2>&1); then
        echo "LAB ok $name $(awk "BEGIN{printf \"%.1f\", $(date +%s.%N) - $start}")s"
    else
        echo "$out" | tail -30
        echo "LAB FAILED $name: $(echo "$out" | tail -1 | cut -c1-160)"
    fi
}
# until_true SECONDS COMMAND...: waits for the command to succeed.
until_true() {
    local end=$(($(date +%s) + $1)) out
    shift
    until out=$("$@" 2>&1); do
        if [ "$(date +%s)" -ge "$end" ]; then
            echo "not within the time: $*: $out"
            return 1
        fi
        sleep 0.3
    done
    echo "$out"
}

echo "LAB boot $(cut -d' ' -f1 /proc/uptime)s $(nproc) cores, $(systemctl --version | head -1)"
kvm() { modprobe kvm_amd 2>/dev/null || modprobe kvm_intel; test -c /dev/kvm; }
check "kvm is there" kvm
echo "LAB end"
