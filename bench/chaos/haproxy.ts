/**
 * HAProxy in front of the two servers, as their users would set it up: active checks on `/readyz`, which has a listener of
 * its own. It does not try again what has failed (`retries 0`), so that nothing is hidden from the count.
 */
import { Data, Effect } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { start } from "../../test/support/program.ts"
import type { Address } from "./load.ts"

/**
 * How often it checks, and how many checks make up its mind, either way. Without a `timeout check` of its own a check has
 * failed after `inter`, and on a busy machine HAProxy takes servers for dead that are only slow.
 */
export const check = { inter: 100, fall: 2, rise: 2 } as const

/** Its frontends have an address of their own: no connection takes a port of it for its own end. */
const frontend = "127.0.0.4"

/** The first line of `haproxy -v`, or nothing where there is none. */
export const version = (): string | undefined => {
  const { status, stdout } = spawnSync("haproxy", ["-v"], { encoding: "utf8" })
  return status === 0 ? stdout.split("\n")[0] : undefined
}

/** Makes sure that there is one: from Debian, where this may install it. */
export const install = (): string | undefined => {
  const found = version()
  if (found !== undefined || process.getuid?.() !== 0) return found
  console.log("There is no haproxy: installing it with apt-get.")
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  // A mirror that says nothing is given up.
  const patience = ["-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=1"]
  const apt = (...args: ReadonlyArray<string>) =>
    spawnSync("apt-get", [...patience, ...args], { stdio: ["ignore", "ignore", "inherit"], env })
  apt("update", "-qq")
  apt("install", "-y", "-qq", "--no-install-recommends", "haproxy")
  return version()
}

export interface Backend {
  readonly host: string
  /** Of HTTP/1.1, HTTP/2 and health. */
  readonly ports: readonly [number, number, number]
}

/** A port of the frontends' address that nobody listens on. */
const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, frontend, () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

const config = (ports: readonly [number, number], backends: ReadonlyArray<Backend>): string => {
  const servers = (which: 0 | 1, more: string) =>
    backends
      .map(({ host, ports }, index) => `  server s${index} ${host}:${ports[which]} check port ${ports[2]} ${more}`)
      .join("\n")
  return `global
  maxconn 4000
defaults
  mode http
  retries 0
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  timeout check 2s
  option httpchk GET /readyz
  http-check expect status 200
  default-server inter ${check.inter}ms fall ${check.fall} rise ${check.rise}
frontend http1
  bind ${frontend}:${ports[0]}
  default_backend http1
frontend http2
  bind ${frontend}:${ports[1]} proto h2
  default_backend http2
backend http1
  balance roundrobin
${servers(0, "")}
backend http2
  balance roundrobin
${servers(1, "proto h2 check-proto h1")}
`
}

class NotStarted extends Data.TaggedError("NotStarted")<{ readonly message: string }> {}

/** Starts it, and waits until it takes connections. */
export const run = Effect.fnUntraced(function* (backends: ReadonlyArray<Backend>) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "chaos-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )
  const ports = [yield* freePort, yield* freePort] as const
  const file = join(directory, "haproxy.cfg")
  writeFileSync(file, config(ports, backends))
  const checked = spawnSync("haproxy", ["-c", "-f", file], { encoding: "utf8" })
  if (checked.status !== 0) return yield* new NotStarted({ message: checked.stderr + checked.stdout })
  // In the foreground of a master, which says when its worker is up.
  const program = yield* start(file, { command: ["haproxy", "-W", "-db", "-f"] })
  yield* program.printed(/Loading success|New worker .* forked/)
  const address = (index: 0 | 1): Address => ({ host: frontend, port: ports[index] })
  return { http: address(0), http2: address(1), output: program.output }
})

/** What it took for down because a check took too long: a server that was only slow, or HAProxy was. */
export const misjudged = (output: string): ReadonlyArray<string> =>
  output
    .split("\n")
    .filter((line) => / is DOWN.*timeout/i.test(line))
    .map((line) => /Server .*?(?=, check duration|\.|$)/.exec(line)?.[0] ?? line)
