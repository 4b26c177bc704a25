/** Who is run: one server program each, with what it promises. */
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

/**
 * What a case may need that is not part of every subject's promise. A subject without it is not judged by that case.
 *
 * - `http2`: it says that it stops HTTP/2 servers
 * - `raw`: connections can be upgraded to something that is no WebSocket, or be tunnels
 * - `clean-up`: it runs the application's clean-up
 * - `clean-ups`: it runs several of them
 * - `process`: it ends the process itself
 * - `uncaught`: it stops the process after an uncaught error
 * - `SIGHUP`: it stops on a hangup
 * - `delay`: it can serve on for a while before it stops
 * - `readiness`: it answers probes
 * - `probes`: it has a listener for them that outlives the others
 * - `background`: it waits for work that no client waits for
 */
export type Feature = (typeof everything)[number]

const everything = [
  "http2",
  "raw",
  "clean-up",
  "clean-ups",
  "process",
  "uncaught",
  "SIGHUP",
  "delay",
  "readiness",
  "probes",
  "background"
] as const

export interface Subject {
  readonly name: string
  readonly file: string
  readonly args?: ReadonlyArray<string>
  readonly features: ReadonlyArray<Feature>
  /** The exit code of a stop in which nothing went wrong. */
  readonly cleanExit: number
  /** Ours: a case that fails fails the run. */
  readonly ours?: true
  /** Installed apart, in `bench/peers`. */
  readonly peer?: true
}

const file = (name: string): string => fileURLToPath(new URL(`servers/${name}.ts`, import.meta.url))

const whole = ["http2", "clean-up", "clean-ups", "process", "uncaught", "SIGHUP", "delay"] as const

export const subjects: ReadonlyArray<Subject> = [
  {
    name: "effect-kms",
    file: file("effect-kms"),
    features: [...whole, "readiness", "probes", "background"],
    cleanExit: 0,
    ours: true
  },
  { name: "effect-kms-node", file: file("effect-kms-node"), features: [...whole, "raw"], cleanExit: 0, ours: true },
  {
    name: "NodeHttpServer",
    file: file("node-http-server"),
    features: ["http2", "clean-up", "clean-ups", "process"],
    cleanExit: 130
  },
  { name: "node:http", file: file("node-http"), features: ["http2", "raw"], cleanExit: 0 },
  { name: "http-terminator", file: file("http-terminator"), features: ["raw"], cleanExit: 0, peer: true },
  { name: "stoppable", file: file("stoppable"), features: ["raw"], cleanExit: 0, peer: true },
  {
    name: "terminus",
    file: file("terminus"),
    features: ["raw", "clean-up", "process", "delay", "readiness"],
    cleanExit: 0,
    peer: true
  },
  {
    name: "http-graceful-shutdown",
    file: file("http-graceful-shutdown"),
    features: ["http2", "raw", "clean-up", "process", "delay"],
    cleanExit: 0,
    peer: true
  },
  {
    name: "fastify",
    file: file("fastify"),
    features: ["http2", "raw", "clean-up", "clean-ups"],
    cleanExit: 0,
    peer: true
  },
  {
    name: "close-with-grace",
    file: file("close-with-grace"),
    features: ["http2", "raw", "clean-up", "clean-ups", "process", "uncaught", "SIGHUP"],
    cleanExit: 0,
    peer: true
  }
]

/** They stop as badly as can be: each case has to be failed by one of them. */
export const controls: ReadonlyArray<Subject> = ["exits", "stays"].map((name) => ({
  name,
  file: file("control"),
  args: [name],
  features: everything,
  cleanExit: 0
}))

export const arePeersInstalled = (): boolean =>
  existsSync(fileURLToPath(new URL("../peers/node_modules", import.meta.url)))
