/** The few pages a browser sees: how to get a token, connect, push and pull. */
import { html, raw } from 'hono/html'

const STYLE = `
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
  pre { background: color-mix(in srgb, currentColor 8%, transparent); padding: .8rem; overflow-x: auto; border-radius: .4rem }
  h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
`

type Html = ReturnType<typeof html>

const page = (title: string, body: Html): Html =>
  html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${title}</title>
        <style>
          ${raw(STYLE)}
        </style>
      </head>
      <body>
        ${body}
      </body>
    </html>`

/** `origin` is where clients reach the registry, without a trailing slash. */
export function homePage(origin: string): Html {
  const plain = origin.startsWith('http:')
  const port = new URL(origin).port
  return page(
    'sreg-lite',
    html`<h1>sreg-lite</h1>
      <p>A registry for Singularity and Apptainer images, at <code>${origin}</code>.</p>
      <h2>Get a token</h2>
      <p>Its administrator makes one on the host:</p>
      <pre>
sreg-lite user add NAME
sreg-lite token create NAME</pre>
      <h2>Connect</h2>
      <pre>npx sreg-lite connect ${origin} --token-file FILE${plain ? ' --insecure' : ''}</pre>
      ${
        port === ''
          ? html`<p>or, without sreg-lite:</p>
              <pre>apptainer remote add ${plain ? '--insecure ' : ''}sreg ${origin}</pre>`
          : html`<p>
              (<code>apptainer remote add</code> cannot store an address with a port;
              <code>connect</code> can.)
            </p>`
      }
      <h2>Push and pull</h2>
      <pre>
apptainer push -U image.sif library://NAME/default/image:latest
apptainer pull library://NAME/default/image:latest</pre>`,
  )
}

/** Where clients send their users for a token (apptainer prints this address). */
export function tokensPage(origin: string): Html {
  return page(
    'Tokens',
    html`<h1>Tokens</h1>
      <p>
        Tokens of this registry are made on its host. Ask the administrator of
        <code>${origin}</code>, or, if that is you:
      </p>
      <pre>
sreg-lite user add NAME
sreg-lite token create NAME --expires 90d</pre>
      <p>Then give it to the client:</p>
      <pre>apptainer remote login --tokenfile FILE</pre>`,
  )
}

/** Target of the `Container URL` that clients print; the same whether it exists or not. */
export function containerPage(path: string): Html {
  return page(
    path,
    html`<h1>${path}</h1>
      <pre>apptainer pull library://${path}</pre>`,
  )
}
