# settle.sh WORK: WORK/root becomes WORK/disk.raw with WORK/vmlinuz and WORK/initrd beside it.
root=$1/root
printf '/dev/vda / ext4 defaults,noatime 0 0\n' >"$root/etc/fstab"
printf 'lab\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost lab\n::1 localhost lab\n' >"$root/etc/hosts"
printf 'uninitialized\n' >"$root/etc/machine-id"
install -m 644 "$1/lab.service" "$root/etc/systemd/system/lab.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../lab.service "$root/etc/systemd/system/multi-user.target.wants/lab.service"
# A getty on a serial port hangs up the log that is written to it.
for unit in serial-getty@ttyS0.service serial-getty@ttyS1.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    e2scrub_all.timer systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cp -L "$root/vmlinuz" "$1/vmlinuz"
cp -L "$root/initrd.img" "$1/initrd"
truncate -s 6G "$1/disk.raw"
mke2fs -q -t ext4 -L lab -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$1/disk.raw"
chmod 644 "$1/disk.raw" "$1/vmlinuz" "$1/initrd"
rm -rf "$root"
