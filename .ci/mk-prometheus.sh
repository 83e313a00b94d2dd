#!/usr/bin/env bash
# mk-prometheus.sh IMAGE SUITE…: an image like prom/prometheus made from Debian's package, with the programs, the
# configuration, the data and the user where the official one has them. The suite decides about the version; the first
# one that can be had counts. A mirror may lag behind the dates of a suite that is not released yet, and signatures are
# checked all the same.
set -euo pipefail
image=$1
shift
mirror=$(sed -nE 's#^URIs: (.*/debian)$#\1#p' /etc/apt/sources.list.d/debian.sources | head -n 1)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for suite in "$@"; do
  if mmdebstrap --quiet --variant=minbase --include=ca-certificates,prometheus,promtool \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='install -d -o 65534 -g 65534 "$1/prometheus"' \
    "$suite" "$folder/root.tar" "$mirror"
  then break; fi
  rm -f "$folder/root.tar"
done
docker import --change 'USER nobody' --change 'WORKDIR /prometheus' --change 'VOLUME /prometheus' \
  --change 'EXPOSE 9090' --change 'ENTRYPOINT ["/bin/prometheus"]' \
  --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]' \
  "$folder/root.tar" "$image"
