# Runs as root in the lab guest at each boot, from the second disk. One line per check: `LAB ok NAME SECONDS` or `LAB FAILED NAME: last words`.
# The first boot installs the package and works with it; the second one, after a reboot, sees that all came back.
export LC_ALL=C.UTF-8 HOME=/root
check() {
    local name=$1 start out
    shift
    start=$(date +%s.%N)
    # Not in a condition: there the shell would go on after a failed command.
    out=$(set -e; "$@" 2>&1)
    if [ $? -eq 0 ]; then
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
socket=/run/debvisor/api.sock
ready() { curl -fsS -m 20 --unix-socket $socket http://localhost/health/ready; }
vm() { dvctl vm show web1 -o json | jq -r "$1"; }
is() { local got; got=$(vm "$1"); echo "$1 is $got, wanted $2"; test "$got" = "$2"; }
main_pid() { systemctl show -P MainPID "$1"; }
qemu() { pgrep -f 'qemu-system-x86_64.*web1'; }

installs() { dpkg -i /lab/debvisor.deb; }
units_run() {
    systemctl is-active debvisord.socket debvisord-https.socket debvisord-grpc.socket
    until_true 60 systemctl is-active debvisord.service
    until_true 60 systemctl is-active debvisord-agent.service
    until_true 60 ready
}
api_may_only_bind_low_ports() {
    test "$(ps -o user= -p "$(main_pid debvisord)")" = debvisor
    # Bit 10 is CAP_NET_BIND_SERVICE (capabilities(7)): port 80 of ACME's http-01; no other may ever be had.
    grep -E '^CapEff:\s0+400$' "/proc/$(main_pid debvisord)/status"
    grep -E '^CapBnd:\s0+400$' "/proc/$(main_pid debvisord)/status"
}
agent_listens_on_nothing() {
    local inodes
    inodes=$(ls -l "/proc/$(main_pid debvisord-agent)/fd" | grep -o 'socket:\[[0-9]*\]' | tr -dc '0-9\n')
    for inode in $inodes; do
        ! awk -v i="$inode" '$4=="0A" && $10==i {found=1} END {exit !found}' /proc/net/tcp /proc/net/tcp6
    done
}
# So that the kernel moves the packets of guests: before the agent opens it, the device must answer.
vhost_is_there() { modprobe vhost_net; test -c /dev/vhost-net; }
kvm_is_there() { modprobe kvm_amd 2>/dev/null || modprobe kvm_intel; test -c /dev/kvm; systemctl restart debvisord-agent; until_true 60 ready; }
image() {
    dvctl pool create default
    dvctl network create default
    dvctl image create tiny --source file=/lab/tiny.qcow2
    until_true 60 sh -c 'test "$(dvctl image show tiny -o json | jq -r .status.state)" = ready'
}
guest_boots() {
    dvctl vm create web1 --image tiny --memory 256MiB --network default --start
    until_true 120 is .status.state running
    until_true 120 dvctl vm exec web1 -- uname -a
}
under_kvm() { is .status.acceleration kvm; }
in_a_scope() { grep -E '\.scope$' "/proc/$(qemu)/cgroup"; }
unprivileged() { test "$(ps -o uid= -p "$(qemu)" | tr -d ' ')" -ge 1000; grep -E '^Seccomp:\s2' "/proc/$(qemu)/status"; }
# One CPU, so one queue: with two, nested KVM under emulation ended in a panic of the lab's kernel.
vhost_moves_packets() {
    test "$(find "/proc/$(qemu)/fd" -lname /dev/vhost-net | wc -l)" -eq 1
    test "$(find "/proc/$(qemu)/fd" -lname /dev/net/tun | wc -l)" -eq 1
    until_true 30 ping -c 3 -i 0.3 -W 2 "$(vm '[.status.addresses[] | select(contains("."))][0]')"
}
huge_pages_back_a_guest() {
    echo 80 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
    dvctl vm create huge --image tiny --set memory=128MiB --set hugepages=2m --set ballooning=false --set power=paused
    until_true 60 sh -c 'test "$(dvctl vm show huge -o json | jq -r .status.state)" = paused'
    grep -q 'KernelPageSize: *2048 kB' "/proc/$(pgrep -f 'qemu-system-x86_64.*huge')/smaps"
    dvctl vm delete huge --yes
    echo 0 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
}
# killed UNIT: ends it hard; systemd starts it again, and the guest is the same process.
killed() {
    local pid guest
    pid=$(main_pid "$1")
    guest=$(qemu)
    kill -9 "$pid"
    until_true 60 sh -c "p=\$(systemctl show -P MainPID $1); test \$p -gt 0 -a \$p -ne $pid"
    until_true 60 ready
    until_true 60 is .status.state running
    test "$(qemu)" = "$guest"
    until_true 60 dvctl vm exec web1 -- true
}
stopped_agent() {
    local guest
    guest=$(qemu)
    systemctl restart debvisord-agent
    until_true 60 is .status.state running
    test "$(qemu)" = "$guest"
}
activated() {
    systemctl stop debvisord.service
    ! systemctl is-active debvisord.service
    until_true 60 ready
    systemctl is-active debvisord.service
}
restart_loses_nothing() {
    local lost=0
    (sleep 1; systemctl restart debvisord.service) &
    for _ in $(seq 60); do
        curl -fsS -m 60 --unix-socket $socket -o /dev/null http://localhost/api/v1/projects/default/vms || lost=$((lost + 1))
        sleep 0.1
    done
    wait
    echo "$lost of 60 requests were lost"
    test $lost -eq 0
}
back_after_reboot() {
    until_true 90 ready
    until_true 120 is .status.state running
    until_true 240 dvctl vm exec web1 -- true
    # A status from before the reboot would name the boot before.
    is .status.boot "$(cat /proc/sys/kernel/random/boot_id)"
}
purged() {
    dvctl vm delete web1 --yes
    dpkg -P debvisor
    ! pgrep -x debvisord
    ! systemctl cat debvisord.service
}

echo "LAB boot $(cut -d' ' -f1 /proc/uptime)s $(nproc) cores, $(systemctl --version | head -1)"
if [ ! -e /var/lib/lab-rebooted ]; then
    check "the package installs" installs
    check "its units run" units_run
    check "the api may bind low ports, nothing else" api_may_only_bind_low_ports
    check "the agent listens on nothing" agent_listens_on_nothing
    check "vhost is there" vhost_is_there
    check "kvm is there" kvm_is_there
    check "pool, network and image are made" image
    check "a guest boots and answers" guest_boots
    check "the guest runs under kvm" under_kvm
    check "the guest has a scope of its own" in_a_scope
    check "the guest has no rights and seccomp" unprivileged
    check "vhost moves its packets" vhost_moves_packets
    check "huge pages back a guest" huge_pages_back_a_guest
    check "a killed api comes back" killed debvisord.service
    check "a killed agent adopts its guest" killed debvisord-agent.service
    check "a restarted agent adopts its guest" stopped_agent
    check "the api is started by its socket" activated
    check "a restart of the api loses no request" restart_loses_nothing
    # Before the agent of the next boot looks whether KVM works: without it the guest would be emulated twice over.
    lsmod | awk '/^kvm_(amd|intel)/ {print $1}' >/etc/modules-load.d/lab.conf
    touch /var/lib/lab-rebooted /run/lab-reboot
    systemctl reboot --no-block
    exit 0
fi
check "all comes back after a reboot" back_after_reboot
check "the package goes" purged
journalctl -b -u debvisord -u debvisord-agent -p warning --no-pager | tail -20
echo "LAB end"
