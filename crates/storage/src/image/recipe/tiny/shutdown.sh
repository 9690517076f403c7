#!/bin/sh
# What the guest agent calls to shut down. There is no init to ask, so it is done here.
sync
case "$*" in
  *-r*) exec /bin/busybox reboot -f ;;
  *-H*) exec /bin/busybox halt -f ;;
  *) exec /bin/busybox poweroff -f ;;
esac
