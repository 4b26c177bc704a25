/**
 * A proxy that opens tunnels (CONNECT), as the browsers' and curl's own for HTTPS do.
 */
import type { KmsHijack } from "effect-kms"
import { createServer, type IncomingMessage, type Server } from "node:http"
import { connect } from "node:net"
import { type Duplex, pipeline } from "node:stream"

/** A tunnel in which nothing has moved for this long is at the end of its transfer, in milliseconds. */
const quiet = 2000

export const createProxy = (hijack: KmsHijack.KmsHijack["Service"]): Server =>
  createServer((_request, response) => {
    response.writeHead(405, { allow: "CONNECT" }).end()
  }).on("connect", (request: IncomingMessage, client: Duplex, head: Buffer) => {
    const target = URL.parse(`tcp://${request.url}`)
    if (target === null) return void client.end("HTTP/1.1 400 Bad Request\r\n\r\n")
    const upstream = connect({ host: target.hostname, port: Number(target.port), allowHalfOpen: true })
    upstream.once("connect", () => client.write("HTTP/1.1 200 Connection Established\r\n\r\n"))
    upstream.write(head)
    // There and back. A failure on either side is the end of both.
    pipeline(client, upstream, client, () => {})

    // A tunnel has no end of its own that anybody here could know: when the drain begins it has until it is quiet.
    const goodbye = () =>
      new Promise<void>((resolve) => {
        upstream.setTimeout(quiet, resolve).once("close", resolve)
      })
    hijack.adoptUnsafe(client, { name: "tunnel", goodbye })
    hijack.adoptUnsafe(upstream, { name: `tunnel to ${request.url}`, goodbye })
  })
