// Buttons that copy a field. They show up only where copying works; the field can be selected by hand anyway.

for (const button of navigator.clipboard ? document.querySelectorAll("button[data-copy]") : []) {
  const field = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
}
