/**
 * How an HTTP/2 session ends. Its peer is told which stream was the last, and once nothing is in flight the session closes.
 */
import * as Effect from "effect/Effect"
import type { ServerHttp2Session } from "node:http2"
import type { Closing, Connection } from "./connections.ts"
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

  /**
   * To be called again whenever something on it has ended. It is not closed before all has: of a stream that comes to a
   * closed session Node lets go while it is still being read, which in Node 22.19 writes to memory that is free. And not
   * in this turn: the peer has to be told first.
   *
   * Then Node waits for the peer to close its own half, for ever: from when all is written it has `closeTimeout` for that.
   */
  end(): void {
    // Its peer has reset it, and the socket has not told yet. To send GOAWAY now would throw.
    if (this.session.destroyed) return this.connection.destroy()
    if (this.told) return this.close()
    this.told = true
    this.session.goaway()
    this.connection.closeAfterFinish()
    Effect.runFork(this.host.turn).addObserver(() => {
      this.closable = true
      this.close()
    })
  }

  private close(): void {
    if (this.closable && this.connection.inFlight === 0) this.session.close()
  }

  destroy(): void {
    this.session.destroy()
  }
}
