#!/bin/sh
# The echo page of the tiny guest.
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REQUEST_METHOD $REQUEST_URI from $REMOTE_ADDR at $(hostname) up $(cut -d' ' -f1 /proc/uptime)"
