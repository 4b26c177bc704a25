/** What a case is, and what clients in several of them do. */
import { Effect, Exit, type Scope } from "effect"
import { connect, type ConnectOptions, type Peer, type Response } from "../../test/support/peers.ts"
import type { Settings } from "./servers/settings.ts"
import { expect, type Server, within } from "./server.ts"
import type { Feature } from "./subject.ts"

export interface Case {
  /** A sentence that is true where it passes. */
  readonly name: string
  /** Whose tests, or which probe or complaint, it comes from. */
  readonly origin: string
  readonly settings?: Partial<Settings>
  /** Its client has to get to something in the time that a subject gives. With `--patient` effect-kms gives more of it. */
  readonly hurried?: true
  readonly needs?: ReadonlyArray<Feature>
  /** These are known not to pass, and why. Where one does pass, the case is too weak, and the run fails. */
  readonly knownToFail?: ReadonlyArray<string>
  readonly because?: string
  readonly run: (server: Server) => Effect.Effect<unknown, never, Scope.Scope>
}

export interface Group {
  readonly name: string
  readonly cases: ReadonlyArray<Case>
}

/** The next response, whole. */
export const answer = (peer: Peer, millis = 6000): Effect.Effect<Response> =>
  within(millis, "the answer comes whole")(peer.response)

/** The next response is this. */
export const answered = (peer: Peer, text: string, millis = 6000): Effect.Effect<Response> =>
  Effect.tap(answer(peer, millis), (response) =>
    expect(
      response.status === 200 && response.text === text,
      `the answer was ${response.status} ${JSON.stringify(response.text.slice(0, 60))}`
    )
  )

export const saysClose = (response: Response): Effect.Effect<void> =>
  expect(
    response.headers["connection"] === "close",
    `the response says Connection: ${response.headers["connection"] ?? "nothing"}`
  )

/** A request whose handler has begun. */
export const inFlight = (server: Server, path: string, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(server.port, options)
    peer.get(path)
    yield* server.began(path.split("?")[0]!)
    return peer
  })

/** A connection on which a request has been answered. */
export const kept = (server: Server, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(server.port, options)
    peer.get("/quick")
    yield* answered(peer, "quick")
    return peer
  })

export interface Hammered {
  /** Requests written on an open connection, and not answered with 200. */
  readonly lost: number
  /** Connections that were told to close before they were closed. */
  readonly told: number
}

/** Clients without pause, each on one connection until that ends. `stop` runs once so many requests have been answered. */
export const hammer = (
  server: Server,
  connections: number,
  stop: Effect.Effect<unknown>,
  options: ConnectOptions = {}
): Effect.Effect<Hammered, never, Scope.Scope> =>
  Effect.gen(function* () {
    let answers = 0
    let lost = 0
    let told = 0
    let stopped = false
    const peers = yield* Effect.forEach(Array.from({ length: connections }), () => connect(server.port, options))
    const client = Effect.fnUntraced(function* (peer: Peer) {
      while (peer.socket.writable) {
        peer.get("/quick")
        const exit = yield* Effect.exit(peer.response)
        if (Exit.isFailure(exit) || exit.value.status !== 200) {
          lost++
          return
        }
        if (exit.value.headers["connection"] === "close") {
          told++
          return
        }
        if (++answers >= connections * 20 && !stopped) {
          stopped = true
          yield* Effect.forkChild(stop)
        }
      }
    })
    yield* within(
      10_000,
      "every client is done"
    )(Effect.forEach(peers, client, { concurrency: "unbounded", discard: true }))
    return { lost, told }
  })
