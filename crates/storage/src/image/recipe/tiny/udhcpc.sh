#!/bin/sh
# Called by udhcpc with what the DHCP server said.
case $1 in
  bound | renew) ;;
  *) exit 0 ;;
esac
ip addr flush dev $interface scope global
ip addr add $ip/${mask:-24} dev $interface
for gateway in $router; do ip route replace default via $gateway dev $interface; break; done
: > /etc/resolv.conf
[ -n "$domain" ] && echo "search $domain" >> /etc/resolv.conf
for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
[ "$(hostname)" = tiny ] && [ -n "$hostname" ] && hostname $hostname
[ "$1" = bound ] && echo "TINY-DHCP $interface $ip/${mask:-24} ${router:-none}" > /dev/console
exit 0
