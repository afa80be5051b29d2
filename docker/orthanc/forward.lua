-- Orthanc: send each CT series to the node over one association, once it has stopped growing.
-- What the node returns has another modality (SEG, SR) and stays. A job of Orthanc does the
-- sending: SendToModality() takes single instances only, and would open an association for each.

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' then
    print('CT series ' .. seriesId .. ' goes to dicom-node')
    local order = { Resources = { seriesId }, Synchronous = false }
    RestApiPost('/modalities/dicom-node/store', DumpJson(order, true))
  end
end
