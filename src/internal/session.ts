/**
 * How an HTTP/2 session ends. Its peer is told which stream was the last, and once nothing is in flight the session closes.
 */
import * as Effect from "effect/Effect"
import type { ServerHttp2Session } from "node:http2"
import type { Closing, Connection } from "./connection.ts"
import type { Process } from "./process.ts"

export class Session implements Closing {
  /** The peer knows which stream is the last. */
  told = false
  private closable = false
  private readonly session: ServerHttp2Session
  private readonly connection: Connection
  private readonly host: Process

  constructor(session: ServerHttp2Session, connection: Connection, host: Process) {
    this.session = session
    this.connection = connection
    this.host = host
  }

  /** To be called again whenever something on it has ended. */
  end(): void {
    endAll([this], this.host)
  }

  /** Tells the peer which stream is the last. Says whether that was news. */
  tell(): boolean {
    // Its peer has reset it, and the socket has not told yet. To send GOAWAY now would throw.
    if (this.session.destroyed) {
      this.connection.destroy()
      return false
    }
    if (this.told) {
      this.close()
      return false
    }
    this.told = true
    this.session.goaway()
    this.connection.closeAfterFinish()
    return true
  }

  /** The peer has been told. */
  release(): void {
    this.closable = true
    this.close()
  }

  private close(): void {
    if (this.closable && this.connection.inFlight === 0) this.session.close()
  }

  destroy(): void {
    this.session.destroy()
  }
}

/**
 * Ends sessions. None is closed before all on it has ended: of a stream that comes to a closed session Node lets go while it
 * is still being read, which in Node 22.19 writes to memory that is free. And not in this turn: the peer has to be told first.
 * All of them share one turn, since a fiber for each of 1,000 would be most of what their end costs.
 *
 * Then Node waits for the peer to close its own half, for ever: from when all is written it has `closeTimeout` for that.
 */
export const endAll = (sessions: ReadonlyArray<Session>, host: Process): void => {
  const told = sessions.filter((session) => session.tell())
  if (told.length === 0) return
  Effect.runFork(host.turn).addObserver(() => {
    for (const session of told) session.release()
  })
}
