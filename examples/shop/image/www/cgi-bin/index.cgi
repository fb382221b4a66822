#!/bin/sh
# One page: what there is to buy, and how many orders were placed so far. `/cgi-bin/index.cgi?order` places one.
ask() { printf '%s\r\nQUIT\r\n' "$1" | nc -w 2 "$DB_HOST" "$DB_PORT" | head -n 1 | tr -dc '0-9'; }

case $QUERY_STRING in
order) orders=$(ask 'INCR orders') ;;
*) orders=$(ask 'INCRBY orders 0') ;;
esac
if [ -z "$orders" ]; then
    printf 'Status: 503\r\nContent-Type: text/plain\r\n\r\nthe database does not answer\n'
    exit
fi
printf 'Content-Type: text/plain\r\n\r\n%s\n\n' "$SHOP_NAME"
if [ -e /www/prices.txt ]; then sed "s/$/ $CURRENCY/" /www/prices.txt; fi
printf '\norders so far: %s\n' "$orders"
