/**
 * What each client is given.
 */
import type { ClientRequest } from "node:http"
import type { Socket } from "node:net"
import type { Ledger } from "../ledger.ts"
import type { Load } from "../load.ts"
import type { Random } from "../random.ts"

/** Tells the client's port of a new connection. It has one from the attempt on, and may be reset before it is connected. */
export const onPort = (socket: Socket, tell: (port: number | undefined) => void): void => {
  socket.once("connectionAttempt", () => queueMicrotask(() => tell(socket.localPort)))
}

/** The same for a request to a numeric address: the attempt is made a tick before anybody is told of the socket. */
export const onRequestPort = (request: ClientRequest, tell: (port: number | undefined) => void): void => {
  request.once("socket", ({ localPort }) => tell(localPort))
}

export interface Client {
  readonly id: number
  readonly load: Pick<Load, "http" | "http2">
  readonly ledger: Ledger
  readonly random: Random
  /** To be called with each answer. */
  readonly heard: () => void
  /** Whether it is time to end. */
  readonly stopping: () => boolean
  /** Calls back at once when it is, or as soon as that is so. */
  readonly onStop: (listener: () => void) => void
  /** A pause that the plan asks for, between two requests; shorter where the end comes first. */
  readonly pause: (least: number, most: number, next: () => void) => void
}
