# A ploopd on one client of a Nomad cluster, by its own program, with its folders on the host.
job "ploopd" {
  datacenters = ["dc1"]
  type        = "service"

  constraint {
    attribute = "${meta.ploopd}"
    value     = "true"
  }

  group "ploopd" {
    # A disk has one owner.
    count = 1

    network {
      port "api" {
        static       = 7447
        host_network = "loopback"
      }
    }

    task "ploopd" {
      driver       = "exec"
      user         = "ploopd"
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        command = "/usr/bin/ploopd"
        args    = ["serve", "--config", "${NOMAD_TASK_DIR}/ploopd.yaml"]
      }

      template {
        destination   = "local/ploopd.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOF
          state-dir: /var/lib/ploopd
          root:
            main: /srv/ploop
          http-socket: /run/ploopd/api.sock
          http-listen: 127.0.0.1:7447
          nbd-socket: /run/ploopd/nbd.sock
          nbd-listen: none
          log-json: true
        EOF
      }

      service {
        name     = "ploopd"
        port     = "api"
        provider = "nomad"

        check {
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "5s"
        }
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
