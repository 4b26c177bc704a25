/**
 * Uploads in pieces, with pauses between them, each on a connection of its own. The server answers with the SHA-256 of what
 * it got; anything but the right one is a failure.
 */
import { createHash } from "node:crypto"
import { request } from "node:http"
import { now } from "../ledger.ts"
import { type Client, onRequestPort } from "./client.ts"

const pieceSize = 32 * 1024

export const uploads = (client: Client): void => {
  const { heard, ledger, load, pause, random, stopping } = client
  const next = (): void => {
    if (stopping()) return
    const pieces = Array.from({ length: random.between(3, 10) }, () => Buffer.alloc(pieceSize, random.between(0, 255)))
    const hash = createHash("sha256")
    for (const piece of pieces) hash.update(piece)
    one(pieces, hash.digest("hex"), () => pause(10, 100, next))
  }

  const one = (pieces: ReadonlyArray<Buffer>, hash: string, done: () => void): void => {
    const opened = now()
    let port: number | undefined
    let over = false
    ledger.counts.connections++
    ledger.counts.sent++
    const end = (problem?: string): void => {
      if (over) return
      over = true
      if (problem === undefined) {
        ledger.counts.answered++
        heard()
      } else {
        ledger.fail({ how: problem, opened, written: now(), idle: undefined, port })
      }
      done()
    }
    const upload = request({
      ...load.http,
      method: "POST",
      path: "/upload",
      agent: false,
      headers: { "content-length": pieces.length * pieceSize }
    })
    onRequestPort(upload, (own) => (port = own))
    upload.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
    upload.on("response", (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => (body += chunk))
      response.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
      response.on("end", () =>
        end(response.statusCode === 200 && body === hash ? undefined : `status ${response.statusCode}`)
      )
    })
    const write = (index: number): void => {
      if (over) return
      if (index === pieces.length) return void upload.end()
      upload.write(pieces[index])
      pause(10, 80, () => write(index + 1))
    }
    write(0)
  }
  next()
}
