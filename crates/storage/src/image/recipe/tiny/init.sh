#!/bin/busybox sh
# First process of the tiny guest. It loads the drivers, takes its name from a `cidata` seed and its address by DHCP,
# serves an echo page and a shell on the serial line, and powers off on the ACPI button or when the guest agent asks.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var/run
/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/ TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/virtio-ports
mount -t devpts devpts /dev/pts
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module; done 2>/dev/null
hostname tiny
ip link set lo up
echo "TINY-UP $(cat /proc/uptime)"

# a NoCloud seed: only its host name is read
for disk in /dev/vd? /dev/sd? /dev/sr?; do
  [ -b $disk ] || continue
  [ "$(dd if=$disk bs=1 skip=32808 count=6 2>/dev/null | tr A-Z a-z)" = cidata ] || continue
  mkdir -p /seed
  mount -t iso9660 -o ro $disk /seed 2>/dev/null || continue
  name=$(sed -n 's/^"\?local-hostname"\?: *"\?\([A-Za-z0-9.-]*\).*/\1/p' /seed/meta-data | head -n 1)
  [ -n "$name" ] && hostname $name
  id=$(sed -n 's/^"\?instance-id"\?: *"\?\([A-Za-z0-9._-]*\).*/\1/p' /seed/meta-data | head -n 1)
  echo "TINY-SEED $disk ${id:-none} ${name:-none}"
  umount /seed
  break
done

for link in /sys/class/net/*; do
  name=${link##*/}
  [ $name = lo ] && continue
  ip link set $name up
  udhcpc -b -t 8 -T 1 -i $name -x hostname:$(hostname) -s /etc/udhcpc.sh >/dev/null 2>&1 &
done
# a link that is plugged in later is brought up as well
mdev_net='[ "$SUBSYSTEM" = net ] && [ "$ACTION" = add ] && ip link set $INTERFACE up && exec udhcpc -b -t 8 -T 1 -i $INTERFACE -s /etc/udhcpc.sh'
printf '#!/bin/sh\n%s\nexit 0\n' "$mdev_net" > /run/uevent
chmod 755 /run/uevent
uevent /run/uevent >/dev/null 2>&1 &

httpd -p 80 -h /www
# busybox acpid runs /etc/acpi/PWRF/00000080 when the button is pressed
acpid -l /dev/null 2>/dev/null

port=$(grep -ls org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name)
if [ -n "$port" ]; then
  port=${port%/name}
  ln -s /dev/${port##*/} /dev/virtio-ports/org.qemu.guest_agent.0
  qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -f /run/qemu-ga.pid -t /run && echo TINY-AGENT
fi
echo "TINY-READY $(cat /proc/uptime)"
while :; do setsid cttyhack sh -l; sleep 1; done </dev/console >/dev/console 2>&1
