// Takes an image that is pasted anywhere on the page. data: { shown, most }: whether the box is to be seen; characters at most.
// Triggers `image` with a PNG, a data URL, scaled down to 512 pixels: networks see less.
const SIDE = 512
const MOST_BYTES = 10 * 2 ** 20

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement
  const [panel, box, button, said] = [".panel", ".box", "button", ".said"].map((name) => root.querySelector(name))
  panel.hidden = !data.shown
  button.hidden = !navigator.clipboard?.read // browsers have it on https and on this machine alone

  async function take(blob) {
    said.textContent = "Reading…"
    try {
      if (blob.size > MOST_BYTES) throw new Error("The image has more than 10 MiB.")
      const picture = await createImageBitmap(blob).catch(() => {
        throw new Error("What was pasted is not an image that your browser can read.")
      })
      const scale = Math.min(1, SIDE / Math.max(picture.width, picture.height))
      const canvas = document.createElement("canvas")
      canvas.width = Math.max(1, Math.round(picture.width * scale))
      canvas.height = Math.max(1, Math.round(picture.height * scale))
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height)
      const url = canvas.toDataURL("image/png")
      if (url.length > data.most) throw new Error("The image is too large, even scaled down to 512 pixels.")
      said.textContent = `Pasted: ${picture.width}×${picture.height} pixels` + (scale < 1 ? ", scaled down to 512." : ".")
      setTriggerValue("image", url)
    } catch (error) {
      said.textContent = error.message
    }
  }

  function pasted(event) {
    const image = [...(event.clipboardData?.items ?? [])].find((item) => item.kind === "file" && item.type.startsWith("image/"))
    if (image) {
      event.preventDefault()
      take(image.getAsFile())
    } else if (event.composedPath().includes(box)) {
      event.preventDefault()
      said.textContent = "There is no image on the clipboard: copy one first."
    }
  }

  button.onclick = async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"))
        if (type) return take(await item.getType(type))
      }
      said.textContent = "There is no image on the clipboard: copy one first."
    } catch {
      said.textContent = "Your browser does not let this page read the clipboard: click the box and press Ctrl-V."
    }
  }
  box.onbeforeinput = (event) => event.preventDefault() // nothing is written here, it only takes the focus
  root.stopListening?.()
  document.addEventListener("paste", pasted)
  panel.ariaBusy = "false"
  root.stopListening = () => document.removeEventListener("paste", pasted)
  return root.stopListening
}
