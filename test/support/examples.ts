/**
 * The programs in `examples`, started on free ports, and a client that asks them things.
 */
import { Deferred, Effect, Exit, type Scope } from "effect"
import { Agent, type ClientRequest, type IncomingHttpHeaders, request as http } from "node:http"
import { Agent as TlsAgent, request as https } from "node:https"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { type Ended, type Program, start } from "./program.ts"

/** A line that names the address a program listens on, and the port in it. */
export const listening = /Listening on https?:\/\/\S*:(\d+)/

export interface Example extends Program {
  /** Where it listens, in the order of its lines. */
  readonly ports: ReadonlyArray<number>
}

/** Starts an example, and waits until it listens on `count` ports. */
export const example = (name: string, count = 1): Effect.Effect<Example, never, Scope.Scope> =>
  Effect.gen(function* () {
    const program = yield* start(fileURLToPath(new URL(`../../examples/${name}/main.ts`, import.meta.url)), {
      env: { PORT: "0", HTTP2_PORT: "0", HEALTH_PORT: "0" }
    })
    yield* program.printed(new RegExp(`(?:${listening.source}[^]*?){${count}}`))
    const ports = Array.from(program.output().matchAll(new RegExp(listening, "g")), ([, port]) => Number(port))
    return { ...program, ports }
  })

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
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
}

/** Sends a request on a connection of its own, which the client would like to keep. */
export const ask = (port: number, path: string, options: AskOptions = {}): Effect.Effect<Asked, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => send(port, path, options)),
    ({ sent }) => Effect.sync(() => sent.destroy())
  )

const send = (port: number, path: string, { body, ca, headers, hold, method }: AskOptions): Asked => {
  const started = Deferred.makeUnsafe<void, Error>()
  const answer = Deferred.makeUnsafe<Answer, Error>()
  const fail = (error: Error) => {
    Deferred.doneUnsafe(started, Exit.fail(error))
    Deferred.doneUnsafe(answer, Exit.fail(error))
  }
  const where = { host: "localhost", port, path, method: method ?? "GET", headers: headers ?? {} }
  const sent =
    ca === undefined
      ? http({ ...where, agent: new Agent({ keepAlive: true }) })
      : https({ ...where, ca, agent: new TlsAgent({ keepAlive: true }) })
  sent.on("error", fail)
  sent.on("response", (response) => {
    let received = ""
    response.setEncoding("utf8")
    response.on("error", fail)
    response.on("data", (chunk: string) => {
      received += chunk
      Deferred.doneUnsafe(started, Exit.void)
    })
    response.on("end", () => {
      const { headers, statusCode } = response
      const whole = { status: statusCode!, headers, body: received, at: performance.now() }
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
export const after = (answers: ReadonlyArray<Answer>, ended: Ended): number =>
  ended.at - Math.max(...answers.map(({ at }) => at))
