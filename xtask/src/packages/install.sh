# Run as root by xtask: install.sh SUITE|- [PACKAGE...]. Without packages it renews apt's lists.
# A policy-rc.d that forbids every start stands while packages are configured; what was there before comes back, however this ends.
set -eu
suite=$1
shift
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
policy=/usr/sbin/policy-rc.d
if [ $# -eq 0 ]; then
    for try in 1 2 3; do
        apt-get update -q && exit 0
        echo "apt-get update failed, try $try of 3" >&2
        sleep $((try * 5))
    done
    exit 1
fi
saved=$(mktemp -d)
[ ! -e "$policy" ] || cp -p "$policy" "$saved/policy"
restore() {
    if [ -e "$saved/policy" ]; then cp -p "$saved/policy" "$policy"; else rm -f "$policy"; fi
    rm -rf "$saved"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
if [ "$suite" != - ]; then set -- -t "$suite" "$@"; fi
apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
