/**
 * How each of the others ends a server at SIGTERM: as its own README says, with a deadline of 25 seconds where it takes one,
 * which is that of effect-kms, and with the end of the process right after it where it has none of its own.
 */
import { createRequire } from "node:module"
import type { Server } from "node:http"
import type { WebSocketServer } from "ws"
import type { Kind, Peer } from "./kinds.ts"

const require = createRequire(new URL("./peers/package.json", import.meta.url))

const deadline = 25_000

interface Stopped {
  readonly server: Server
  readonly sockets: WebSocketServer
}

type Stop = (stopped: Stopped) => void

const atSigterm = (stop: () => Promise<unknown>): void => {
  process.once("SIGTERM", () => void stop().then(() => process.exit(0)))
}

const closed = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))

export const stops: Record<Exclude<Kind, "effect-kms" | "NodeHttpServer" | "NodeHttpServer, 0 s" | "fastify">, Stop> = {
  "node:http": ({ server, sockets }) => {
    process.once("SIGTERM", () => {
      server.close(() => process.exit(0))
      for (const socket of sockets.clients) socket.terminate()
    })
  },
  "node:http, 1001": ({ server, sockets }) => {
    process.once("SIGTERM", () => {
      server.close(() => process.exit(0))
      for (const socket of sockets.clients) socket.close(1001)
    })
  },
  "http-terminator": ({ server }) => {
    const { createHttpTerminator } = load<{
      createHttpTerminator: (options: object) => { terminate: () => Promise<void> }
    }>("http-terminator")
    const terminator = createHttpTerminator({ server, gracefulTerminationTimeout: deadline })
    atSigterm(() => terminator.terminate())
  },
  stoppable: ({ server }) => {
    const stoppable =
      load<(server: Server, grace: number) => Server & { stop: (callback: () => void) => void }>("stoppable")
    const stopped = stoppable(server, deadline)
    atSigterm(() => new Promise<void>((resolve) => stopped.stop(resolve)))
  },
  "@godaddy/terminus": ({ server }) => {
    const { createTerminus } = load<{ createTerminus: (server: Server, options: object) => void }>("@godaddy/terminus")
    createTerminus(server, { signal: "SIGTERM", timeout: deadline, useExit0: true })
  },
  "http-graceful-shutdown": ({ server }) => {
    load<(server: Server, options: object) => void>("http-graceful-shutdown")(server, { timeout: deadline })
  },
  "close-with-grace": ({ server }) => {
    load<(options: object, close: () => Promise<void>) => void>("close-with-grace")({ delay: deadline }, () =>
      closed(server)
    )
  }
}

/** One of the peers, or a word about how to get it. */
export const load = <A>(peer: Peer): A => {
  try {
    return require(peer) as A
  } catch (cause) {
    throw new Error(`${peer} is missing: npm ci --prefix bench/peers`, { cause })
  }
}
