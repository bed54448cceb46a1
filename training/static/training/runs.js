// Says how many runs are ticked, and lets them be compared when their number is right.

const form = document.getElementById("compare");
if (form) {
  const button = document.getElementById("compare-button"), hint = document.getElementById("compare-hint");
  const { fewest, most } = form.dataset;
  const asked = hint.textContent;
  const look = () => {
    const ticked = form.querySelectorAll("[name=run]:checked").length;
    button.disabled = ticked < Number(fewest) || ticked > Number(most);
    hint.textContent = ticked > Number(most) ? `${ticked} are ticked. Leave ${most} at most.` : ticked < Number(fewest) ? asked : `${ticked} are ticked.`;
  };
  form.addEventListener("change", look);
  addEventListener("pageshow", look); // back from the comparison, the ticks may still be there
  look();
}
