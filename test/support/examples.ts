/**
 * The programs in `examples`, started on free ports, and a client that asks them things.
 */
import { Deferred, Effect, Exit, type Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { Agent, type ClientRequest, type IncomingHttpHeaders, request as http } from "node:http"
import { Agent as TlsAgent, request as https } from "node:https"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Ended, type Program, start } from "./program.ts"

/** A line that names the address a program listens on, and the port in it. */
export const listening = /Listening on \w+:\/\/\S*:(\d+)/

export interface Example extends Program {
  /** Where it listens, in the order of its lines. */
  readonly ports: ReadonlyArray<number>
  /** The port in the line that has `what` in it. */
  readonly portOf: (what: string) => number
  /** A directory of its own: for its Unix sockets, `console.sock` and `http.sock`, and for what it writes. */
  readonly directory: string
}

/** Any port that is free, whatever the example calls it. */
const ports = {
  PORT: "0",
  HTTP2_PORT: "0",
  HEALTH_PORT: "0",
  TLS_PORT: "0",
  PROXY_PORT: "0",
  TCP_PORT: "0",
  RPC_PORT: "0"
}

/** Starts an example, and waits until it listens on `count` ports. */
export const example = (name: string, count = 1): Effect.Effect<Example, never, Scope.Scope> =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "example-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    )
    const sockets = { SOCKET: join(directory, "console.sock"), HTTP_SOCKET: join(directory, "http.sock") }
    const program = yield* start(fileOf(name, "main.ts"), { env: { ...ports, ...sockets, REPORTS: directory } })
    yield* program.printed(new RegExp(`(?:${listening.source}[^]*?){${count}}`))
    const lines = Array.from(program.output().matchAll(new RegExp(`${listening.source}.*`, "g")))
    return {
      ...program,
      ports: lines.map(([, port]) => Number(port)),
      portOf: (what) => Number(lines.find(([line]) => line.includes(what))?.[1]),
      directory
    }
  })

/** The path of a file of an example. */
export const fileOf = (name: string, file: string): string =>
  fileURLToPath(new URL(`../../examples/${name}/${file}`, import.meta.url))

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly bytes: Buffer
  /** `performance.now()` when it was there to its last byte. */
  readonly at: number
}

export interface Asked {
  readonly sent: ClientRequest
  readonly isAnswered: () => boolean
  /** Completes with the first bytes of the body. */
  readonly started: Effect.Effect<void, Error>
  /** The whole answer. Fails if the connection ends before, or is refused. */
  readonly answer: Effect.Effect<Answer, Error>
}

export interface AskOptions {
  readonly method?: string
  readonly headers?: Record<string, string | number>
  readonly body?: string
  /** Sends the head only: the rest is up to `sent`. */
  readonly hold?: boolean
  /** The certificate to trust, for a server that speaks TLS. */
  readonly ca?: string
  /** A Unix socket, whatever the port. */
  readonly socketPath?: string
}

/** Sends a request on a connection of its own, which the client would like to keep. */
export const ask = (port: number, path: string, options: AskOptions = {}): Effect.Effect<Asked, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => send(port, path, options)),
    ({ sent }) => Effect.sync(() => sent.destroy())
  )

const send = (port: number, path: string, { body, ca, headers, hold, method, socketPath }: AskOptions): Asked => {
  const started = Deferred.makeUnsafe<void, Error>()
  const answer = Deferred.makeUnsafe<Answer, Error>()
  const fail = (error: Error) => {
    Deferred.doneUnsafe(started, Exit.fail(error))
    Deferred.doneUnsafe(answer, Exit.fail(error))
  }
  const at = socketPath === undefined ? { host: "localhost", port } : { socketPath }
  const where = { ...at, path, method: method ?? "GET", headers: headers ?? {} }
  const sent =
    ca === undefined
      ? http({ ...where, agent: new Agent({ keepAlive: true }) })
      : https({ ...where, ca, agent: new TlsAgent({ keepAlive: true }) })
  sent.on("error", fail)
  sent.on("response", (response) => {
    const received: Array<Buffer> = []
    response.on("error", fail)
    response.on("data", (chunk: Buffer) => {
      received.push(chunk)
      Deferred.doneUnsafe(started, Exit.void)
    })
    response.on("end", () => {
      const { headers, statusCode } = response
      const bytes = Buffer.concat(received)
      const whole = { status: statusCode!, headers, body: bytes.toString(), bytes, at: performance.now() }
      Deferred.doneUnsafe(answer, Exit.succeed(whole))
    })
  })
  if (hold === true) sent.flushHeaders()
  else sent.end(body)
  return {
    sent,
    isAnswered: () => Deferred.isDoneUnsafe(answer),
    started: Deferred.await(started),
    answer: Deferred.await(answer)
  }
}

/** Completes when nobody listens on `port` any more: the drain has begun. */
export const refused = (port: number): Effect.Effect<void> =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    })
    socket.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code === "ECONNREFUSED")))
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.flatMap((isRefused) => (isRefused ? Effect.void : refused(port))))

/** How long after the last answer a process ended, in milliseconds. */
export const after = (answers: ReadonlyArray<{ readonly at: number }>, ended: Ended): number =>
  ended.at - Math.max(...answers.map(({ at }) => at))
