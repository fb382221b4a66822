//! What can be wrong in `containers:`.

use expect_test::expect;

use crate::support::check_app;

#[test]
fn containers() {
    check_app(
        r#"containers:
  shop:
    image: "registry.lan:5000/shop:1.4"
    command: [serve, --port, 80]
    env: { A: 1, B: true, C: "x", D: 1.50 }
    ports: ["8080:80", "127.0.0.1:53:53/udp"]
    volumes: ["/etc/web:/etc/web:ro", "data:/data"]
    user: 1000
    network: shop
    labels: { team: web }
"#,
        expect![[""]],
    );
}

#[test]
fn container_images() {
    check_app(
        r#"containers:
  a: { image: nginx }
  b: { image: "nginx:latest" }
  c: { image: "Nginx:1" }
  d: { image: "https://registry.lan/x:1" }
  e: { image: "a b" }
  f: {}
  g: { image: "x:{{ vars.tag }}" }
  h: { image: }
"#,
        expect![[r#"
            warning[image-not-pinned] apps/a/app.yaml:2:15: image `nginx` has no tag
              = name a version, as in nginx:1.4, or a digest: otherwise a commit does not say what runs
            warning[image-not-pinned] apps/a/app.yaml:3:15: image `nginx:latest` has the tag `latest`, which moves
              = name a version, as in nginx:1.4, or a digest: otherwise a commit does not say what runs
            error[container-image] apps/a/app.yaml:4:15: `Nginx:1` is not an image reference: the name of a repository is lower-case
              = write nginx:1
            error[container-image] apps/a/app.yaml:5:15: `https://registry.lan/x:1` is not an image reference: it is a URL
              = write it without the scheme: registry.lan/x:1
            error[container-image] apps/a/app.yaml:6:15: `a b` is not an image reference: it holds a space or control character
              = write registry/name:tag, such as registry.example/shop/web:1.4
            error[container-image] apps/a/app.yaml:7:3: this container names no image
              = add image: "registry.example/name:version"
            error[template-undefined] apps/a/app.yaml:8:15: `vars` has no `tag`
              = give it a value in `vars:` of app.yaml, of an environment or of the host
              ~ for host `attic` and 1 more
            error[no-value] apps/a/app.yaml:9:8: `image` has no value
              = write a text behind it, or remove it
        "#]],
    );
}

#[test]
fn container_settings() {
    check_app(
        r#"containers:
  "-a": { image: "a:1" }
  b:
    image: "b:1"
    command: serve --port 80 --host 0.0.0.0
    entrypoint: [sh, -c, "echo {{ host }}"]
    env: { "A B": 1, N: , T: "{{ endpoints.mqtt }}", L: [1] }
    ports: [80, "80:70000", "80-90:80-90", "x:80:80", "8080:80", "8080:80"]
    volumes: ["/:/host", "/var/run/docker.sock:/s", "./x:/x", "/a", "/srv/a:/a:z", "/proc:/p", "/srv/b:/same", "/srv/c:/same"]
    user: "a b"
    network: "container:db"
    labels: { io.mainstay.app: x }
    privileged: true
    volume: []
  c: { image: "c:1", network: host, ports: ["80:80"] }
  d: { image: "d:1", env: [A=1] }
"#,
        expect![[r#"
            error[container-name] apps/a/app.yaml:2:3: `-a` is not a container name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit
              = rename it, for instance to `a`
            error[container-command] apps/a/app.yaml:5:14: `command` is one text; no shell splits it into arguments
              = write a list: command: ["serve", "--port", "80", "--host", …]
            error[template-value] apps/a/app.yaml:6:26: this is a map
              = name what is meant in it, or write `| tojson`
              ~ for host `attic` and 1 more
            error[container-env] apps/a/app.yaml:7:12: `A B` is not a variable's name
              = use letters, digits and `_`, without `=` or spaces
            error[no-value] apps/a/app.yaml:7:22: variable `N` has no value
              = write a text, number or boolean behind it, or remove it
            error[template-undefined] apps/a/app.yaml:7:30: `endpoints` has no `mqtt`
              = offer it with `endpoints:` in the app.yaml of an application, or of an environment
              ~ for host `attic` and 1 more
            error[wrong-type] apps/a/app.yaml:7:57: variable `L` must be a text, number or boolean, but a list stands here
              = write a text, number or boolean
            error[container-port] apps/a/app.yaml:8:13: `80` is not a published port: it names only one port, and mainstay publishes no random ones
              = write "80:80" to publish it under the same number
            error[container-port] apps/a/app.yaml:8:17: `80:70000` is not a published port: `70000` is not a port from 1 to 65535
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
            error[container-port] apps/a/app.yaml:8:29: `80-90:80-90` is not a published port: a range is not read; list each port
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
            error[container-port] apps/a/app.yaml:8:44: `x:80:80` is not a published port: `x` is not an IP address
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
            error[container-port] apps/a/app.yaml:8:66: this port is published twice
              = keep one of the two
              - apps/a/app.yaml:8:55: first published here
            error[container-mount] apps/a/app.yaml:9:15: a container may not mount `/`: a container that sees the whole host is root on it
              = mount only the files or folders that it needs
            error[container-mount] apps/a/app.yaml:9:26: a container may not mount `/var/run/docker.sock`: whoever reaches the engine's socket is root on the host
              = mount only the files or folders that it needs
            error[container-volume] apps/a/app.yaml:9:53: `./x:/x` is not a volume: its source `./x` depends on a current folder, which a host does not have
              = bring the file under files/ and mount it by its absolute path
            error[container-volume] apps/a/app.yaml:9:63: `/a` is not a volume: it has no target
              = write "SOURCE:TARGET" or "SOURCE:TARGET:ro", such as "/etc/bridge:/etc/bridge:ro" or "data:/data"
            error[container-volume] apps/a/app.yaml:9:69: `/srv/a:/a:z` is not a volume: `z` is neither `ro` nor `rw`
              = write "SOURCE:TARGET" or "SOURCE:TARGET:ro", such as "/etc/bridge:/etc/bridge:ro" or "data:/data"
            error[container-mount] apps/a/app.yaml:9:84: a container may not mount `/proc`: it opens the kernel to the container
              = mount only the files or folders that it needs
            error[container-volume] apps/a/app.yaml:9:112: two volumes are mounted at `/same`
              = keep one of the two
            error[container-user] apps/a/app.yaml:10:11: `a b` is not a user
              = write a name or number, with a group if needed: "1000:1000"
            error[container-network] apps/a/app.yaml:11:14: `container:db` shares the network of something mainstay does not order
              = use a named network that both join, or network: host
            error[container-label] apps/a/app.yaml:12:15: label `io.mainstay.app` is mainstay's own
              = use another prefix: mainstay knows its containers by `io.mainstay.…`
            error[unknown-key] apps/a/app.yaml:13:5: a container has no key `privileged`
              = it knows `image`, `command`, `entrypoint`, `env`, `ports`, `volumes`, `user`, `network`, `labels`, `adopt` and `drift`
            error[unknown-key] apps/a/app.yaml:14:5: a container has no key `volume`
              = did you mean `volumes`?
            error[container-network] apps/a/app.yaml:15:45: nothing is published with network: host
              = remove `ports`: the container listens on the host itself
            error[wrong-type] apps/a/app.yaml:16:27: `env` is a map, not a list
              = write env: { NAME: value }
        "#]],
    );
}

#[test]
fn misspelt_image() {
    check_app(
        r#"containers: { a: { imgae: "a:1" } }
"#,
        expect![[r#"
            error[unknown-key] apps/a/app.yaml:1:20: a container has no key `imgae`
              = did you mean `image`?
        "#]],
    );
}
